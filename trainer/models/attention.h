#pragma once
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/models/layers.h"

namespace trireme {

// Multi-head attention with separate projections: diffusers' Attention as a UNet uses it.
class Attention {
 public:
  // Queries of width `channels`, keys and values from a context of width `context_channels`.
  // REQUIRES: channels = heads x head dimension.
  Attention(const ParameterScope& scope, int64_t channels, int64_t context_channels, int64_t heads);
  // x: (N, L, channels); context: (N, S, context_channels); result: (N, L, channels).
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x, const at::Tensor& context) const;

 private:
  Linear to_q_;
  Linear to_k_;
  Linear to_v_;
  Linear to_out_;
  int64_t heads_;
};

// Gated feed-forward layer (GEGLU; Shazeer, 2020) of inner width 4 x channels.
class FeedForward {
 public:
  FeedForward(const ParameterScope& scope, int64_t channels);
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x) const;  // (N, L, channels)

 private:
  Linear proj_;
  Linear out_;
};

enum class FirstAttention { kSelf, kText };

struct TransformerShape {
  int64_t channels = 0;  // Of the feature map.
  int64_t heads = 0;
  int64_t num_layers = 1;
  int64_t cross_attention_dim = 0;
  int64_t norm_num_groups = 32;
  FirstAttention first_attention = FirstAttention::kSelf;
};

// Self-attention, attention to the text, feed-forward; each after a layer norm, each added.
class TransformerBlock {
 public:
  TransformerBlock(const ParameterScope& scope, const TransformerShape& shape, int64_t inner);
  // x: (N, L, inner); text: (N, S, cross_attention_dim).
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x, const at::Tensor& text) const;

 private:
  LayerNorm norm1_;
  Attention attn1_;
  LayerNorm norm2_;
  Attention attn2_;
  LayerNorm norm3_;
  FeedForward ff_;
  FirstAttention first_attention_;
};

enum class Projection { kConvolution, kLinear };

// Transformer blocks on the pixels of a feature map: diffusers' Transformer2DModel. The projections
// differ in the shape of their weights only.
class SpatialTransformer {
 public:
  SpatialTransformer(const ParameterScope& scope, const TransformerShape& shape,
                     Projection projection);
  // x: (N, C, H, W); text: (N, S, cross_attention_dim).
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x, const at::Tensor& text) const;

 private:
  GroupNorm norm_;
  at::Tensor proj_in_weight_;  // (inner, C) or (inner, C, 1, 1)
  at::Tensor proj_in_bias_;
  const AdapterSite* proj_in_site_;
  std::vector<TransformerBlock> blocks_;
  at::Tensor proj_out_weight_;  // (C, inner) or (C, inner, 1, 1)
  at::Tensor proj_out_bias_;
  const AdapterSite* proj_out_site_;
};
}  // namespace trireme
