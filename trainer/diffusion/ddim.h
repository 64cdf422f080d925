#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/config.h"
#include "trainer/diffusion/noise_schedule.h"
#include "trainer/models/diffusion_model.h"

namespace trireme {

struct SamplerOptions {
  int64_t steps = 30;
  double guidance = 5.0;  // Classifier-free guidance (Ho and Salimans, 2022); 1: off.
};

// The timesteps that DDIM visits, from much to little noise: diffusers' "leading" spacing with
// steps_offset 1, or "trailing" where the last timestep has zero SNR (and prediction is not
// epsilon, which says nothing there). Throws UsageError unless 1 <= steps <= num_timesteps().
[[nodiscard]] std::vector<int64_t> ddim_timesteps(const NoiseSchedule& schedule,
                                                  Prediction prediction, int64_t steps);

// Deterministic DDIM (Song et al., 2021; eta = 0) with classifier-free guidance; for flow the Euler
// steps of the probability flow, evenly spaced. `noise`: (N, C, H, W), the start. `unconditional`
// is the empty prompt's condition, used where guidance != 1 and the model takes text. Returns x_0:
// (N, C, H, W). Local.
[[nodiscard]] at::Tensor ddim_sample(DiffusionModel& model, const NoiseSchedule& schedule,
                                     Prediction prediction, const SamplerOptions& options,
                                     const at::Tensor& noise, const Condition& condition,
                                     const Condition& unconditional,
                                     const std::function<void(int64_t step)>& progress = {});
}  // namespace trireme
