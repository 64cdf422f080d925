#pragma once
#include <ATen/core/Tensor.h>

#include "trainer/models/diffusion_model.h"

namespace trireme {

struct GuidanceOptions {
  double scale = 5.0;    // Classifier-free guidance (Ho and Salimans, 2022); 1: off.
  double rescale = 0.0;  // Phi of Lin et al. (2024), section 3.4; 0: off.
};

// A model under classifier-free guidance, both halves in one forward pass. Guidance needs a model
// that takes text, and both conditions; else the conditional output is the result. Local; the model
// outlives it.
class GuidedModel {
 public:
  GuidedModel(DiffusionModel& model, const GuidanceOptions& options, const Condition& condition,
              const Condition& unconditional);

  // x: (N, C, H, W); the model's raw prediction at timestep `time`, like x.
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x, double time) const;

 private:
  DiffusionModel& model_;
  GuidanceOptions options_;
  Condition condition_;  // Of both halves where guided.
  bool is_guided_ = false;
};
}  // namespace trireme
