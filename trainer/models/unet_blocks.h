#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/models/attention.h"
#include "trainer/models/diffusion_model.h"
#include "trainer/models/layers.h"
#include "trainer/models/unet_config.h"

namespace trireme {

// What every block of one forward pass sees.
struct UNetPass {
  at::Tensor embedding;  // (N, E), already through the activation.
  at::Tensor text;       // (N, S, D) or undefined
  std::optional<DropoutKey> dropout_key;
};

// A residual block with time embedding: diffusers' ResnetBlock2D.
class ResnetBlock {
 public:
  struct Shape {
    int64_t in = 0;
    int64_t out = 0;
    double output_scale_factor = 1.0;
  };
  // `number` distinguishes this block's dropout masks from other blocks'.
  ResnetBlock(const ParameterScope& scope, const UNetConfig& config, Shape shape, uint32_t number);
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x, const UNetPass& pass) const;

 private:
  GroupNorm norm1_;
  Conv2d conv1_;
  Linear time_emb_proj_;
  GroupNorm norm2_;
  Conv2d conv2_;
  std::optional<Conv2d> conv_shortcut_;
  Activation activation_;
  TimeScaleShift time_scale_shift_;
  double dropout_;
  double output_scale_factor_;
  uint32_t number_;
};

// Numbers the residual blocks of a network while it is built.
struct BlockCounter {
  uint32_t next = 0;
};

// Resnets, each followed by a transformer where the block attends to text, then a downsampler in
// all blocks but the innermost.
class DownBlock {
 public:
  enum class Place { kOuter, kInnermost };
  DownBlock(const ParameterScope& scope, const UNetConfig& config, const UNetBlockConfig& block,
            int64_t in_channels, Place place, BlockCounter& counter);
  // Returns the output; appends what the up blocks take as skips.
  [[nodiscard]] at::Tensor operator()(at::Tensor x, const UNetPass& pass,
                                      std::vector<at::Tensor>& skips) const;

 private:
  std::vector<SpatialTransformer> attentions_;
  std::vector<ResnetBlock> resnets_;
  std::optional<Conv2d> downsampler_;
  int64_t padding_;
};

// Each resnet takes the newest skip beside its input. All blocks but the outermost then grow their
// output to the size of the newest skip left, by nearest neighbours and a convolution.
class UpBlock {
 public:
  enum class Place { kInner, kOutermost };
  struct Channels {
    int64_t from_below = 0;  // Of the input.
    int64_t skip_last = 0;   // Of the skip that the last resnet takes.
  };
  UpBlock(const ParameterScope& scope, const UNetConfig& config, const UNetBlockConfig& block,
          Channels channels, Place place, BlockCounter& counter);
  [[nodiscard]] at::Tensor operator()(at::Tensor x, const UNetPass& pass,
                                      std::vector<at::Tensor>& skips) const;
  [[nodiscard]] size_t num_skips() const noexcept { return resnets_.size(); }  // That it takes.

 private:
  std::vector<SpatialTransformer> attentions_;
  std::vector<ResnetBlock> resnets_;
  std::optional<Conv2d> upsampler_;
};

// A resnet, and with cross-attention a transformer and a second resnet.
class MiddleBlock {
 public:
  MiddleBlock(const ParameterScope& scope, const UNetConfig& config, BlockCounter& counter);
  [[nodiscard]] at::Tensor operator()(at::Tensor x, const UNetPass& pass) const;

 private:
  std::vector<SpatialTransformer> attentions_;
  std::vector<ResnetBlock> resnets_;
};
}  // namespace trireme
