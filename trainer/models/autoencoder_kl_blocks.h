#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/models/autoencoder_kl_config.h"
#include "trainer/models/layers.h"

// The parts of an AutoencoderKL (Kingma and Welling, 2014, as in Rombach et al., 2022). Unlike a
// UNet's they see no time step, and their attention has one head with biases.
namespace trireme {

class VaeResnet {
 public:
  VaeResnet(const ParameterScope& scope, const AutoencoderKLConfig& config, int64_t in,
            int64_t out);
  [[nodiscard]] at::Tensor operator()(
      const at::Tensor& x) const;  // (N, in, H, W) -> (N, out, H, W)

 private:
  GroupNorm norm1_;
  Conv2d conv1_;
  GroupNorm norm2_;
  Conv2d conv2_;
  std::optional<Conv2d> conv_shortcut_;
  Activation activation_;
};

// Self-attention over pixels, added to its input.
class VaeAttention {
 public:
  VaeAttention(const ParameterScope& scope, const AutoencoderKLConfig& config, int64_t channels);
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x) const;  // (N, C, H, W)

 private:
  GroupNorm group_norm_;
  Linear to_q_;
  Linear to_k_;
  Linear to_v_;
  Linear to_out_;
};

// resnet, attention where the config has it, resnet.
class VaeMidBlock {
 public:
  VaeMidBlock(const ParameterScope& scope, const AutoencoderKLConfig& config);
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x) const;

 private:
  std::optional<VaeAttention> attention_;
  std::vector<VaeResnet> resnets_;
};

class VaeEncoder {
 public:
  VaeEncoder(const ParameterScope& scope, const AutoencoderKLConfig& config);
  [[nodiscard]] at::Tensor operator()(const at::Tensor& images) const;  // -> (N, 2C, H/f, W/f)

 private:
  struct Block {
    std::vector<VaeResnet> resnets;
    std::optional<Conv2d> downsampler;
  };
  Conv2d conv_in_;
  std::vector<Block> down_blocks_;
  VaeMidBlock mid_block_;
  GroupNorm conv_norm_out_;
  Conv2d conv_out_;
};

class VaeDecoder {
 public:
  VaeDecoder(const ParameterScope& scope, const AutoencoderKLConfig& config);
  [[nodiscard]] at::Tensor operator()(const at::Tensor& latents) const;  // -> (N, 3, h*f, w*f)

 private:
  struct Block {
    std::vector<VaeResnet> resnets;
    std::optional<Conv2d> upsampler;
  };
  Conv2d conv_in_;
  VaeMidBlock mid_block_;
  std::vector<Block> up_blocks_;
  GroupNorm conv_norm_out_;
  Conv2d conv_out_;
};
}  // namespace trireme
