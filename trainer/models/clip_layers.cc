#include "trainer/models/clip_layers.h"

#include "trainer/torch_api.h"

namespace trireme {
namespace {
at::Tensor apply_gelu(ClipGelu gelu, const at::Tensor& x) {
  return gelu == ClipGelu::kExact ? at::gelu(x) : x * at::sigmoid(1.702 * x);
}
}  // namespace

ClipLayer::ClipLayer(const ParameterScope& scope, const ClipLayerOptions& options)
    : k_proj_(scope / "self_attn" / "k_proj", options.hidden_size, options.hidden_size),
      v_proj_(scope / "self_attn" / "v_proj", options.hidden_size, options.hidden_size),
      q_proj_(scope / "self_attn" / "q_proj", options.hidden_size, options.hidden_size),
      out_proj_(scope / "self_attn" / "out_proj", options.hidden_size, options.hidden_size),
      layer_norm1_(scope / "layer_norm1", options.hidden_size, options.layer_norm_eps),
      fc1_(scope / "mlp" / "fc1", options.hidden_size, options.intermediate_size),
      fc2_(scope / "mlp" / "fc2", options.intermediate_size, options.hidden_size),
      layer_norm2_(scope / "layer_norm2", options.hidden_size, options.layer_norm_eps),
      heads_(options.num_attention_heads),
      hidden_act_(options.hidden_act),
      mask_(options.mask) {}

at::Tensor ClipLayer::operator()(const at::Tensor& x) const {
  const at::Tensor y = x + attend(layer_norm1_(x));
  return y + fc2_(apply_gelu(hidden_act_, fc1_(layer_norm2_(y))));
}

at::Tensor ClipLayer::attend(const at::Tensor& x) const {
  const auto split = [&](const at::Tensor& y) {
    return y.unflatten(2, {heads_, y.size(2) / heads_}).transpose(1, 2);  // (N, heads, L, d)
  };
  const at::Tensor mixed =
      at::scaled_dot_product_attention(split(q_proj_(x)), split(k_proj_(x)), split(v_proj_(x)), {},
                                       0.0, /*is_causal=*/mask_ == ClipMask::kCausal);
  return out_proj_(mixed.transpose(1, 2).flatten(2));
}
}  // namespace trireme
