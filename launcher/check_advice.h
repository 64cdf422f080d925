#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "trainer/config.h"
#include "trainer/optim/lr_schedule.h"
#include "trainer/run_plan.h"

namespace trireme {

// What is known of a run before its first step.
struct RunFacts {
  RunPlan plan;
  int64_t num_training = 0;  // Draws of an epoch.
  int64_t num_distinct = 0;  // Samples that they are of.
  int64_t num_validation = 0;

  [[nodiscard]] int64_t samples_drawn() const {
    return plan.global_batch.samples_after(plan.steps);
  }
  [[nodiscard]] double epochs() const {
    return static_cast<double>(samples_drawn()) / static_cast<double>(num_training);
  }
};

// The highest learning rate after scaling, and the sum of the rates over the steps; the latter
// times weight_decay is how far decay alone shrinks a weight (its logarithm).
struct LrTotals {
  double peak = 0.0;
  double sum = 0.0;
};
[[nodiscard]] LrTotals total_learning_rates(const OptimOptions& optim, const RunPlan& plan);

// Forward passes of one sample that an evaluation makes, and how many evaluations the run has.
[[nodiscard]] int64_t evaluation_passes(const Config& config, const RunFacts& facts);
[[nodiscard]] int64_t num_evaluations(const Config& config, int64_t steps);
// Forward passes of one sample that training makes or that its time is worth: backward takes about
// two, and with activation checkpointing another forward.
[[nodiscard]] double training_passes(const Config& config, const RunFacts& facts);

// Steps after which a weight's share of the average has halved.
[[nodiscard]] double ema_half_life(double decay);

// Where settings fight each other: each says what, why, and the usual remedy (docs/check.md).
// Changes nothing.
[[nodiscard]] std::vector<std::string> advise(const Config& config, const RunFacts& facts);
}  // namespace trireme
