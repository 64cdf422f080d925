#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "trainer/config.h"
#include "trainer/optim/lr_schedule.h"

namespace trireme {

// What is known of a run before its first step.
struct RunFacts {
  int64_t steps = 0;
  int64_t global_batch = 0;
  int64_t num_training = 0;
  int64_t num_validation = 0;
  ScaledOptim scaled;
};

// Sum over the steps of the learning rate; times weight_decay, how far decay alone shrinks a weight
// (its logarithm).
[[nodiscard]] double sum_of_learning_rates(const LrScheduleOptions& schedule, double base_lr,
                                           int64_t steps);

// Where settings fight each other: each says what, why, and the usual remedy (docs/check.md).
// Changes nothing.
[[nodiscard]] std::vector<std::string> advise(const Config& config, const RunFacts& facts);
}  // namespace trireme
