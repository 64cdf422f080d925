#include "trainer/models/unet_blocks.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/error.h"
#include "core/philox.h"
#include "trainer/models/dropout.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr Conv2d::Options kThreeByThree{.kernel = 3, .stride = 1, .padding = 1};

TransformerShape transformer_shape(const UNetConfig& config, const UNetBlockConfig& block,
                                   int64_t num_layers) {
  return {.channels = block.channels,
          .heads = block.heads,
          .num_layers = num_layers,
          .cross_attention_dim = config.cross_attention_dim,
          .norm_num_groups = config.norm_num_groups,
          .first_attention = block.first_attention};
}

// A block's transformers come before its resnets among the parameters.
std::vector<SpatialTransformer> make_attentions(const ParameterScope& scope,
                                                const UNetConfig& config,
                                                const UNetBlockConfig& block) {
  std::vector<SpatialTransformer> attentions;
  if (block.kind == BlockKind::kPlain) return attentions;
  for (int64_t i = 0; i < block.num_layers; ++i) {
    const int64_t num_layers = block.transformer_layers[static_cast<size_t>(i)];
    attentions.emplace_back(scope / "attentions" / i, transformer_shape(config, block, num_layers),
                            config.projection);
  }
  return attentions;
}
}  // namespace

ResnetBlock::ResnetBlock(const ParameterScope& scope, const UNetConfig& config, Shape shape,
                         uint32_t number)
    : norm1_(scope / "norm1", config.norm_num_groups, shape.in, config.norm_eps),
      conv1_(scope / "conv1", shape.in, shape.out, kThreeByThree),
      time_emb_proj_(
          scope / "time_emb_proj", config.block_embed_dim(),
          config.resnet_time_scale_shift == TimeScaleShift::kDefault ? shape.out : 2 * shape.out),
      norm2_(scope / "norm2", config.norm_num_groups, shape.out, config.norm_eps),
      conv2_(scope / "conv2", shape.out, shape.out, kThreeByThree),
      activation_(config.act_fn),
      time_scale_shift_(config.resnet_time_scale_shift),
      dropout_(config.dropout),
      output_scale_factor_(shape.output_scale_factor),
      number_(number) {
  if (shape.in != shape.out) {
    conv_shortcut_.emplace(scope / "conv_shortcut", shape.in, shape.out,
                           Conv2d::Options{.kernel = 1, .stride = 1, .padding = 0});
  }
}

at::Tensor ResnetBlock::operator()(const at::Tensor& x, const UNetPass& pass) const {
  at::Tensor y = conv1_(activate(activation_, norm1_(x)));  // (N, out, H, W)
  const at::Tensor shift =
      time_emb_proj_(pass.embedding).unsqueeze(2).unsqueeze(3);  // (N, out, 1, 1)
  if (time_scale_shift_ == TimeScaleShift::kDefault) {
    y = norm2_(y + shift);
  } else {
    const auto parts = shift.chunk(2, 1);
    y = norm2_(y) * (1 + parts[0]) + parts[1];
  }
  y = activate(activation_, y);
  if (pass.dropout_key && dropout_ > 0.0) {
    y = drop(y, dropout_, *pass.dropout_key, Stream::kDropout, number_);
  }
  y = (conv_shortcut_ ? (*conv_shortcut_)(x) : x) + conv2_(y);
  return output_scale_factor_ == 1.0 ? y : y / output_scale_factor_;
}

DownBlock::DownBlock(const ParameterScope& scope, const UNetConfig& config,
                     const UNetBlockConfig& block, int64_t in_channels, Place place,
                     BlockCounter& counter)
    : attentions_(make_attentions(scope, config, block)), padding_(config.downsample_padding) {
  for (int64_t i = 0; i < block.num_layers; ++i) {
    resnets_.emplace_back(
        scope / "resnets" / i, config,
        ResnetBlock::Shape{.in = i == 0 ? in_channels : block.channels, .out = block.channels},
        counter.next++);
  }
  if (place == Place::kOuter) {
    downsampler_.emplace(scope / "downsamplers" / 0 / "conv", block.channels, block.channels,
                         Conv2d::Options{.kernel = 3, .stride = 2, .padding = padding_});
  }
}

at::Tensor DownBlock::operator()(at::Tensor x, const UNetPass& pass,
                                 std::vector<at::Tensor>& skips) const {
  for (size_t i = 0; i < resnets_.size(); ++i) {
    x = resnets_[i](x, pass);
    if (!attentions_.empty()) x = attentions_[i](x, pass.text);
    skips.push_back(x);
  }
  if (downsampler_) {
    if (padding_ == 0) x = at::constant_pad_nd(x, {0, 1, 0, 1});
    x = (*downsampler_)(x);
    skips.push_back(x);
  }
  return x;
}

UpBlock::UpBlock(const ParameterScope& scope, const UNetConfig& config,
                 const UNetBlockConfig& block, Channels channels, Place place,
                 BlockCounter& counter)
    : attentions_(make_attentions(scope, config, block)) {
  for (int64_t i = 0; i < block.num_layers; ++i) {
    const int64_t in = i == 0 ? channels.from_below : block.channels;
    const int64_t skip = i == block.num_layers - 1 ? channels.skip_last : block.channels;
    resnets_.emplace_back(scope / "resnets" / i, config,
                          ResnetBlock::Shape{.in = in + skip, .out = block.channels},
                          counter.next++);
  }
  if (place == Place::kInner) {
    upsampler_.emplace(scope / "upsamplers" / 0 / "conv", block.channels, block.channels,
                       kThreeByThree);
  }
}

at::Tensor UpBlock::operator()(at::Tensor x, const UNetPass& pass,
                               std::vector<at::Tensor>& skips) const {
  for (size_t i = 0; i < resnets_.size(); ++i) {
    check(!skips.empty(), "an up block finds a skip for each resnet");
    x = resnets_[i](at::cat({x, skips.back()}, 1), pass);
    skips.pop_back();
    if (!attentions_.empty()) x = attentions_[i](x, pass.text);
  }
  if (upsampler_) {
    check(!skips.empty(), "an inner up block leaves skips for the next");
    x = (*upsampler_)(at::upsample_nearest2d(x, skips.back().sizes().slice(2)));
  }
  return x;
}

MiddleBlock::MiddleBlock(const ParameterScope& scope, const UNetConfig& config,
                         BlockCounter& counter) {
  const int64_t channels = config.mid.channels;
  const ResnetBlock::Shape shape{
      .in = channels, .out = channels, .output_scale_factor = config.mid_block_scale_factor};
  if (config.mid_block == MidBlock::kCrossAttention) {
    attentions_ = make_attentions(scope, config, config.mid);
  }
  resnets_.emplace_back(scope / "resnets" / 0, config, shape, counter.next++);
  if (config.mid_block == MidBlock::kCrossAttention) {
    resnets_.emplace_back(scope / "resnets" / 1, config, shape, counter.next++);
  }
}

at::Tensor MiddleBlock::operator()(at::Tensor x, const UNetPass& pass) const {
  x = resnets_[0](x, pass);
  for (size_t i = 0; i < attentions_.size(); ++i) {
    x = resnets_[i + 1](attentions_[i](x, pass.text), pass);
  }
  return x;
}
}  // namespace trireme
