#pragma once
#include <cstdint>

#include "data/batch_schedule.h"
#include "trainer/config.h"

namespace trireme {

// How a run's work is cut: derived from configuration, world size and number of training samples.
// A rank's positions of a step are [rank, rank + 1) x global batch / ranks.
struct RunPlan {
  int64_t steps = 0;
  BatchSchedule global_batch = 1;  // By step.
  int64_t micro = 0;               // Samples a forward pass, in every step.
  int64_t num_pieces = 0;          // `shards`, or the number of ranks where that is 0.
  int64_t pieces_per_rank = 0;
  LrScheduleOptions lr_schedule;  // With the warm-up in steps, however it was given.

  [[nodiscard]] int64_t micros_per_piece(int64_t step) const {
    return global_batch.global_batch(step) / num_pieces / micro;
  }
  // The global batch of the first step and of the last.
  [[nodiscard]] int64_t first_batch() const { return global_batch.global_batch(1); }
  [[nodiscard]] int64_t last_batch() const { return global_batch.global_batch(steps); }
};

// `num_training`: draws of an epoch. Throws UsageError naming the keys where the numbers do not
// divide (docs/config.md, [batch]).
[[nodiscard]] RunPlan plan_run(const Config& config, int world_size, int64_t num_training);
}  // namespace trireme
