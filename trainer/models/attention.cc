#include "trainer/models/attention.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "core/error.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
int64_t inner_channels(const TransformerShape& shape) {
  return shape.channels / shape.heads * shape.heads;
}

std::vector<int64_t> projection_shape(Projection projection, int64_t out, int64_t in) {
  if (projection == Projection::kLinear) return {out, in};
  return {out, in, 1, 1};
}

Init projection_init(int64_t in) {
  return {.kind = Init::Kind::kUniform, .bound = 1.0 / std::sqrt(static_cast<double>(in))};
}

// A 1x1 convolution on pixels in rows is a linear layer.
at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return at::linear(x, weight.dim() == 2 ? weight : weight.flatten(1), bias);
}
}  // namespace

Attention::Attention(const ParameterScope& scope, int64_t channels, int64_t context_channels,
                     int64_t heads)
    : to_q_(scope / "to_q", channels, channels, Bias::kNone),
      to_k_(scope / "to_k", context_channels, channels, Bias::kNone),
      to_v_(scope / "to_v", context_channels, channels, Bias::kNone),
      to_out_(scope / "to_out" / 0, channels, channels),
      heads_(heads) {
  check(heads > 0 && channels % heads == 0, "attention heads divide the channels");
}

at::Tensor Attention::operator()(const at::Tensor& x, const at::Tensor& context) const {
  const auto split = [&](const at::Tensor& y) {
    return y.unflatten(2, {heads_, y.size(2) / heads_}).transpose(1, 2);  // (N, heads, L, D)
  };
  const at::Tensor mixed = at::scaled_dot_product_attention(split(to_q_(x)), split(to_k_(context)),
                                                            split(to_v_(context)));
  return to_out_(mixed.transpose(1, 2).flatten(2));  // (N, L, channels)
}

FeedForward::FeedForward(const ParameterScope& scope, int64_t channels)
    : proj_(scope / "net" / 0 / "proj", channels, 8 * channels),
      out_(scope / "net" / 2, 4 * channels, channels) {}

at::Tensor FeedForward::operator()(const at::Tensor& x) const {
  const auto halves = proj_(x).chunk(2, -1);
  return out_(halves[0] * at::gelu(halves[1]));
}

TransformerBlock::TransformerBlock(const ParameterScope& scope, const TransformerShape& shape,
                                   int64_t inner)
    : norm1_(scope / "norm1", inner),
      attn1_(scope / "attn1", inner,
             shape.first_attention == FirstAttention::kText ? shape.cross_attention_dim : inner,
             shape.heads),
      norm2_(scope / "norm2", inner),
      attn2_(scope / "attn2", inner, shape.cross_attention_dim, shape.heads),
      norm3_(scope / "norm3", inner),
      ff_(scope / "ff", inner),
      first_attention_(shape.first_attention) {}

at::Tensor TransformerBlock::operator()(const at::Tensor& x, const at::Tensor& text) const {
  const at::Tensor first = norm1_(x);
  at::Tensor y = attn1_(first, first_attention_ == FirstAttention::kText ? text : first) + x;
  y = attn2_(norm2_(y), text) + y;
  return ff_(norm3_(y)) + y;
}

SpatialTransformer::SpatialTransformer(const ParameterScope& scope, const TransformerShape& shape,
                                       Projection projection)
    : norm_(scope / "norm", shape.norm_num_groups, shape.channels, 1e-6) {
  const int64_t channels = shape.channels;
  const int64_t inner = inner_channels(shape);
  const auto in = scope / "proj_in";
  proj_in_weight_ =
      in.add("weight", projection_shape(projection, inner, channels), projection_init(channels));
  proj_in_bias_ = in.add("bias", {inner}, projection_init(channels));
  proj_in_site_ = in.add_site(proj_in_weight_);
  for (int64_t i = 0; i < shape.num_layers; ++i) {
    blocks_.emplace_back(scope / "transformer_blocks" / i, shape, inner);
  }
  const auto out = scope / "proj_out";
  proj_out_weight_ =
      out.add("weight", projection_shape(projection, channels, inner), projection_init(inner));
  proj_out_bias_ = out.add("bias", {channels}, projection_init(inner));
  proj_out_site_ = out.add_site(proj_out_weight_);
}

at::Tensor SpatialTransformer::operator()(const at::Tensor& x, const at::Tensor& text) const {
  const at::Tensor pixels = norm_(x).flatten(2).transpose(1, 2);  // (N, HW, C)
  at::Tensor y = with_adapter(proj_in_site_, pixels,
                              project(pixels, proj_in_weight_, proj_in_bias_));  // (N, HW, inner)
  for (const auto& block : blocks_) y = block(y, text);
  y = with_adapter(proj_out_site_, y, project(y, proj_out_weight_, proj_out_bias_));  // (N, HW, C)
  return x + y.transpose(1, 2).unflatten(2, {x.size(2), x.size(3)});  // (N, C, H, W)
}
}  // namespace trireme
