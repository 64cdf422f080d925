#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "study/machine.h"
#include "study/network_cost.h"
#include "study/step_model.h"

namespace trireme {

// What a cluster would do with a training run.

struct PlanMemory {
  double bytes_per_weight = 0.0;   // Trained or not, on every rank.
  double bytes_per_trained = 0.0;  // Gradients and EMA of what is trained, on every rank.
  double bytes_per_state = 0.0;    // Of the optimizer, likewise; spread when sharded.
  double bytes_per_stored = 4.0;   // Of an activation kept for backward.
  int64_t micro = 0;               // Samples a forward pass; 0: a rank's whole share.
};

// How fast the target comes at other batches (study/tradeoff_fit.h).
struct BatchTradeoff {
  double noise_scale = 0.0;
  // Samples to target as the batch goes to 0; 0: such that `total_samples` are right at the
  // planned batch.
  double e_min = 0.0;
};

struct PlanInputs {
  NetworkCost network;
  GpuPreset gpu;
  Fabric fabric;  // num_ranks is set for each row.
  ComputeModel compute;
  ReductionPlan reduction;
  PlanMemory memory;
  double price_per_hour = 0.0;  // A GPU.
  double total_samples = 0.0;   // Of the whole training.
  double global_batch = 0.0;    // Strong scaling: the batch is the same for every row.
  double batch_per_rank = 0.0;  // Or weak scaling; exactly one is set.
  std::optional<BatchTradeoff> tradeoff;
};

enum class Bottleneck { kCompute, kFixed, kNetwork, kStragglers, kBatch };
[[nodiscard]] std::string advice_on(Bottleneck bottleneck);

// One number of ranks.
struct PlanRow {
  int num_ranks = 1;
  int num_nodes = 1;
  double global_batch = 0.0;
  double samples_per_rank = 0.0;
  bool is_possible = true;  // A sample a rank, at least.
  StepTime step;
  CollectiveTime largest_bucket;  // How its collective would run.
  double samples_per_second = 0.0;
  double efficiency = 0.0;  // Of one rank doing the same, or the same share of it.
  double mfu = 0.0;         // Model FLOPs a second over the peak of all ranks.
  double memory_bytes = 0.0;
  bool fits = true;
  double train_seconds = 0.0;
  double cost = 0.0;
  Bottleneck bottleneck = Bottleneck::kCompute;
  // With a trade-off: the batch that reaches the target soonest, and what it takes.
  double best_batch = 0.0;
  double best_seconds = 0.0;
  double best_cost = 0.0;
};

// REQUIRES: exactly one of global_batch and batch_per_rank is positive.
[[nodiscard]] std::vector<PlanRow> plan_rows(const PlanInputs& inputs, std::span<const int> ranks);

// Preset efficiency and fixed cost as a compute model for this network.
[[nodiscard]] ComputeModel preset_compute(const GpuPreset& gpu, const NetworkCost& network);

[[nodiscard]] nlohmann::ordered_json plan_to_json(const PlanInputs& inputs,
                                                  std::span<const PlanRow> rows);
}  // namespace trireme
