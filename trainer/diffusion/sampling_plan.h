#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "trainer/config.h"
#include "trainer/diffusion/noise_schedule.h"

namespace trireme {

// What a diffusers scheduler_config.json says of how its model is sampled. What the file leaves
// open is nullopt: each sampler then does as its diffusers class does by default.
struct SamplingRules {
  std::optional<TimestepSpacing> timestep_spacing;  // Never kAuto.
  std::optional<int64_t> steps_offset;
  std::optional<bool> set_alpha_to_one;   // ddim
  std::optional<bool> use_karras_sigmas;  // euler, heun, dpmpp_2m
  enum class FinalSigma { kZero, kSigmaMin };
  std::optional<FinalSigma> final_sigmas_type;  // euler, dpmpp_2m
  enum class Variance { kFixedSmall, kFixedLarge };
  std::optional<Variance> variance_type;  // ddpm
  std::optional<double> shift;            // flow

  // For a model without a scheduler config: what trireme writes into its own.
  [[nodiscard]] static SamplingRules of_trireme(const NoiseOptions& noise, Prediction prediction);
};

// x = signal x_0 + spread n. `scale` is the factor by which a sampler that works on sigmas,
// spread / scale, has its own x shrunk: signal where variance is preserved, 1 for flow.
struct NoiseLevel {
  double signal = 1.0;
  double spread = 0.0;
  double scale = 1.0;
};

// A model call at `from` and the way to `to`. As in diffusers, `to` need not be the next `from`.
struct SamplingStep {
  double time = 0.0;  // What the model takes as timestep.
  NoiseLevel from;
  NoiseLevel to;
};

// Which levels a sampler visits, from much to little noise; all numbers on the host, in double.
struct SamplingPlan {
  SamplerName sampler = SamplerName::kDdim;  // Resolved: never kAuto.
  Prediction prediction = Prediction::kEpsilon;
  SamplingRules::Variance variance = SamplingRules::Variance::kFixedSmall;
  double initial_scale = 1.0;  // Of the noise that the first step takes.
  std::vector<SamplingStep> steps;
};

// The sampler that options.sampler stands for: auto is ddim, or flow_euler for flow, where euler
// is too. Throws UsageError for one that the prediction does not allow.
[[nodiscard]] SamplerName resolve_sampler(SamplerName sampler, Prediction prediction);

// Levels and timesteps as the sampler's diffusers class sets them (docs/sampling.md). Throws
// UsageError unless 1 <= options.steps <= num_timesteps(), and for settings that do not go
// together.
[[nodiscard]] SamplingPlan plan_sampling(const SampleOptions& options, const SamplingRules& rules,
                                         const NoiseSchedule& schedule, Prediction prediction);
}  // namespace trireme
