#pragma once
#include <cstdint>

#include <ATen/core/Tensor.h>

#include "trainer/models/layers.h"

namespace trireme {

enum class ClipGelu { kQuick, kExact };  // kQuick: x sigmoid(1.702 x)
enum class ClipMask { kCausal, kNone };

struct ClipLayerOptions {
  int64_t hidden_size = 512;
  int64_t intermediate_size = 2048;
  int64_t num_attention_heads = 8;
  double layer_norm_eps = 1e-5;
  ClipGelu hidden_act = ClipGelu::kQuick;
  ClipMask mask = ClipMask::kCausal;
};

// A pre-norm transformer layer of CLIP's encoders. Local, const once constructed.
class ClipLayer {
 public:
  ClipLayer(const ParameterScope& scope, const ClipLayerOptions& options);
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x) const;  // (N, L, D)

 private:
  [[nodiscard]] at::Tensor attend(const at::Tensor& x) const;

  Linear k_proj_;
  Linear v_proj_;
  Linear q_proj_;
  Linear out_proj_;
  LayerNorm layer_norm1_;
  Linear fc1_;
  Linear fc2_;
  LayerNorm layer_norm2_;
  int64_t heads_;
  ClipGelu hidden_act_;
  ClipMask mask_;
};
}  // namespace trireme
