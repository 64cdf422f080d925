#pragma once
#include <array>
#include <cstdint>
#include <string>

#include "trainer/config.h"

namespace trireme {

// Learning rate and betas after scaling with the global batch (docs/learning_rate.md).
struct ScaledOptim {
  double lr = 0.0;
  std::array<double, 2> betas = {};
  double eps = 0.0;
  std::string rule;  // "linear: 1e-4 x 256/64 = 4e-4", printed before training.
};
// Throws UsageError where sqrt_adam leaves no valid beta. The rate is that of one global batch:
// where it grows, ask for each.
[[nodiscard]] ScaledOptim scale_learning_rate(const OptimOptions& options, int64_t global_batch);

// Learning rate of update `step` (from 1) of a run of `num_steps`, with the warm-up in
// schedule.warmup_steps (run_plan.h resolves samples and fractions). A pure function:
// docs/learning_rate.md.
[[nodiscard]] double learning_rate(const LrScheduleOptions& schedule, double base_lr, int64_t step,
                                   int64_t num_steps);
}  // namespace trireme
