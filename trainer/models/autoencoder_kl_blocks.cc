#include "trainer/models/autoencoder_kl_blocks.h"

#include <array>
#include <cstdint>
#include <optional>

#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr double kEps = 1e-6;
constexpr Conv2d::Options kConv3x3{.kernel = 3, .stride = 1, .padding = 1};
constexpr Conv2d::Options kConv1x1{.kernel = 1, .stride = 1, .padding = 0};
constexpr Conv2d::Options kHalving{.kernel = 3, .stride = 2, .padding = 0};

// The encoder halves with zeros added at the right and bottom only.
at::Tensor pad_right_and_bottom(const at::Tensor& x) {
  return at::constant_pad_nd(x, {0, 1, 0, 1});
}

at::Tensor double_by_nearest(const at::Tensor& x) {
  const std::array<int64_t, 2> size = {2 * x.size(2), 2 * x.size(3)};
  return at::upsample_nearest2d(x, size);
}
}  // namespace

VaeResnet::VaeResnet(const ParameterScope& scope, const AutoencoderKLConfig& config, int64_t in,
                     int64_t out)
    : norm1_(scope / "norm1", config.norm_num_groups, in, kEps),
      conv1_(scope / "conv1", in, out, kConv3x3),
      norm2_(scope / "norm2", config.norm_num_groups, out, kEps),
      conv2_(scope / "conv2", out, out, kConv3x3),
      activation_(config.act_fn) {
  if (in != out) conv_shortcut_.emplace(scope / "conv_shortcut", in, out, kConv1x1);
}

at::Tensor VaeResnet::operator()(const at::Tensor& x) const {
  const at::Tensor y = conv1_(activate(activation_, norm1_(x)));
  const at::Tensor z = conv2_(activate(activation_, norm2_(y)));
  return (conv_shortcut_ ? (*conv_shortcut_)(x) : x) + z;
}

VaeAttention::VaeAttention(const ParameterScope& scope, const AutoencoderKLConfig& config,
                           int64_t channels)
    : group_norm_(scope / "group_norm", config.norm_num_groups, channels, kEps),
      to_q_(scope / "to_q", channels, channels),
      to_k_(scope / "to_k", channels, channels),
      to_v_(scope / "to_v", channels, channels),
      to_out_(scope / "to_out" / 0, channels, channels) {}

at::Tensor VaeAttention::operator()(const at::Tensor& x) const {
  const at::Tensor pixels = group_norm_(x.flatten(2)).transpose(1, 2);  // (N, HW, C)
  const auto as_one_head = [](const at::Tensor& y) { return y.unsqueeze(1); };
  const at::Tensor mixed = at::scaled_dot_product_attention(
      as_one_head(to_q_(pixels)), as_one_head(to_k_(pixels)), as_one_head(to_v_(pixels)));
  return to_out_(mixed.squeeze(1)).transpose(1, 2).reshape(x.sizes()) + x;  // (N, C, H, W)
}

VaeMidBlock::VaeMidBlock(const ParameterScope& scope, const AutoencoderKLConfig& config) {
  const int64_t channels = config.block_out_channels.back();
  if (config.mid_block_attention == AutoencoderKLConfig::Part::kPresent) {
    attention_.emplace(scope / "attentions" / 0, config, channels);
  }
  for (const int64_t i : {0, 1})
    resnets_.emplace_back(scope / "resnets" / i, config, channels, channels);
}

at::Tensor VaeMidBlock::operator()(const at::Tensor& x) const {
  const at::Tensor y = resnets_[0](x);
  return resnets_[1](attention_ ? (*attention_)(y) : y);
}

VaeEncoder::VaeEncoder(const ParameterScope& scope, const AutoencoderKLConfig& config)
    : conv_in_(scope / "conv_in", config.in_channels, config.block_out_channels.front(), kConv3x3),
      mid_block_(scope / "mid_block", config),
      conv_norm_out_(scope / "conv_norm_out", config.norm_num_groups,
                     config.block_out_channels.back(), kEps),
      conv_out_(scope / "conv_out", config.block_out_channels.back(), 2 * config.latent_channels,
                kConv3x3) {
  const auto num_blocks = static_cast<int64_t>(config.block_out_channels.size());
  int64_t in = config.block_out_channels.front();
  for (int64_t i = 0; i < num_blocks; ++i) {
    const auto part = scope / "down_blocks" / i;
    const int64_t out = config.block_out_channels[static_cast<size_t>(i)];
    Block& block = down_blocks_.emplace_back();
    for (int64_t j = 0; j < config.layers_per_block; ++j) {
      block.resnets.emplace_back(part / "resnets" / j, config, j == 0 ? in : out, out);
    }
    if (i + 1 < num_blocks) {
      block.downsampler.emplace(part / "downsamplers" / 0 / "conv", out, out, kHalving);
    }
    in = out;
  }
}

at::Tensor VaeEncoder::operator()(const at::Tensor& images) const {
  at::Tensor x = conv_in_(images);
  for (const auto& block : down_blocks_) {
    for (const auto& resnet : block.resnets) x = resnet(x);
    if (block.downsampler) x = (*block.downsampler)(pad_right_and_bottom(x));
  }
  return conv_out_(at::silu(conv_norm_out_(mid_block_(x))));
}

VaeDecoder::VaeDecoder(const ParameterScope& scope, const AutoencoderKLConfig& config)
    : conv_in_(scope / "conv_in", config.latent_channels, config.block_out_channels.back(),
               kConv3x3),
      mid_block_(scope / "mid_block", config),
      conv_norm_out_(scope / "conv_norm_out", config.norm_num_groups,
                     config.block_out_channels.front(), kEps),
      conv_out_(scope / "conv_out", config.block_out_channels.front(), config.out_channels,
                kConv3x3) {
  const auto num_blocks = static_cast<int64_t>(config.block_out_channels.size());
  int64_t in = config.block_out_channels.back();
  for (int64_t i = 0; i < num_blocks; ++i) {
    const auto part = scope / "up_blocks" / i;
    const int64_t out = config.block_out_channels[static_cast<size_t>(num_blocks - 1 - i)];
    Block& block = up_blocks_.emplace_back();
    for (int64_t j = 0; j < config.layers_per_block + 1; ++j) {
      block.resnets.emplace_back(part / "resnets" / j, config, j == 0 ? in : out, out);
    }
    if (i + 1 < num_blocks) {
      block.upsampler.emplace(part / "upsamplers" / 0 / "conv", out, out, kConv3x3);
    }
    in = out;
  }
}

at::Tensor VaeDecoder::operator()(const at::Tensor& latents) const {
  at::Tensor x = mid_block_(conv_in_(latents));
  for (const auto& block : up_blocks_) {
    for (const auto& resnet : block.resnets) x = resnet(x);
    if (block.upsampler) x = (*block.upsampler)(double_by_nearest(x));
  }
  return conv_out_(at::silu(conv_norm_out_(x)));
}
}  // namespace trireme
