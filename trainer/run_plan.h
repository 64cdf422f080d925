#pragma once
#include <cstdint>

#include "trainer/config.h"

namespace trireme {

// How a run's work is cut: derived from configuration, world size and number of training samples.
struct RunPlan {
  int64_t steps = 0;
  int64_t global_batch = 0;
  int64_t micro = 0;       // Samples a forward pass.
  int64_t num_pieces = 0;  // `shards`, or the number of ranks where that is 0.
  int64_t pieces_per_rank = 0;
  int64_t micros_per_piece = 0;
  int64_t rank_first = 0;  // This rank's positions [rank_first, rank_first + rank_count).
  int64_t rank_count = 0;
};

// Throws UsageError naming the keys where the numbers do not divide (docs/config.md, [batch]).
[[nodiscard]] RunPlan plan_run(const Config& config, int rank, int world_size,
                               int64_t num_training);
}  // namespace trireme
