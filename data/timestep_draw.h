#pragma once
#include <array>
#include <cstdint>

#include "data/latent_batch.h"

namespace trireme {

// Which timesteps training sees (docs/noise.md, "Timesteps").
struct TimestepOptions {
  int64_t num_timesteps = 1000;
  enum class Distribution { kUniform, kLogitNormal } distribution = Distribution::kUniform;
  double logit_mean = 0.0;  // Of logit-normal (Esser et al., 2024).
  double logit_std = 1.0;
  enum class Sampling { kIndependent, kLowDiscrepancy } sampling = Sampling::kIndependent;
  std::array<double, 2> range = {0.0, 1.0};  // Part of the schedule, 0 <= first < second <= 1.
};

// Where in the global batch of its step a sample stands.
struct BatchPosition {
  int64_t step = 1;
  int64_t position = 0;
  int64_t global_batch = 1;
};

struct TimestepDraw {
  int64_t timestep = 0;
  double uniform = 0.0;  // What it was made from, in `range`; flow's sigma.
};

// A pure function of its arguments: independent draws depend on the sample (Stream::kTimestep), a
// low-discrepancy one on the position (Stream::kTimestepOffset; Kingma et al., "Variational
// Diffusion Models", 2021).
[[nodiscard]] TimestepDraw draw_timestep(const TimestepOptions& options, uint64_t seed,
                                         const SampleDraw& draw, const BatchPosition& position);
}  // namespace trireme
