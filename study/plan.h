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
#include "trainer/config.h"
#include "trainer/run_plan.h"

namespace trireme {

// What a cluster would do with a training run.

struct PlanMemory {
  double bytes_per_weight = 0.0;   // Trained or not, on every rank.
  double bytes_per_trained = 0.0;  // Gradients of what is trained, on every rank.
  double bytes_per_state = 0.0;    // Of the optimizer and EMA, likewise; spread when sharded.
  double bytes_per_stored = 4.0;   // Of an activation kept for backward.
};

// How fast the target comes at other batches (study/tradeoff_fit.h).
struct BatchTradeoff {
  double noise_scale = 0.0;
  double e_min = 0.0;            // Samples to target as the batch goes to 0.
  double reference_batch = 0.0;  // For which e_min was made to fit total_samples; 0: it was given.
};

struct PlanInputs {
  // Of the run; its global batch is the same for every row (strong scaling), or batch.per_rank
  // grows with the ranks (weak).
  Config config;
  NetworkCost network;
  GpuPreset gpu;
  Fabric fabric;  // num_ranks is set for each row.
  ComputeModel compute;
  ReductionPlan reduction;
  PlanMemory memory;
  double price_per_hour = 0.0;  // A GPU.
  double total_samples = 0.0;   // Of the whole training.
  std::optional<BatchTradeoff> tradeoff;
};

enum class Bottleneck { kCompute, kFixed, kNetwork, kStragglers, kBatch };
[[nodiscard]] std::string advice_on(Bottleneck bottleneck);

// What ends the search for the best batch: nothing but its cost; a rank's memory; or it lies where
// the law of the trade-off is not known to hold.
enum class BatchLimit { kNone, kMemory, kNoiseScale };
// A batch beyond so many noise scales is reported as an extrapolation.
constexpr double kNoiseScalesKnown = 4.0;

// One number of ranks.
struct PlanRow {
  int num_ranks = 1;
  int num_nodes = 1;
  double global_batch = 0.0;
  double samples_per_rank = 0.0;
  bool is_possible = true;  // The trainer accepts it.
  std::string refusal;      // What it says otherwise.
  StepTime step;
  double all_reduce_bus_gbps = 0.0;  // Of a large message (16 GiB), as nccl-tests prints it.
  CollectiveTime largest_bucket;     // How its collective would run.
  double samples_per_second = 0.0;
  double efficiency = 0.0;  // Of one rank doing the same, or the same share of it.
  double mfu = 0.0;         // Model FLOPs a second over the peak of all ranks.
  double memory_bytes = 0.0;
  bool fits = true;
  double train_seconds = 0.0;
  double cost = 0.0;
  Bottleneck bottleneck = Bottleneck::kCompute;
  // With a trade-off: the batch that the trainer accepts, that fits and that reaches the target
  // soonest, and what it takes; 0: there is none.
  double best_batch = 0.0;
  BatchLimit best_limit = BatchLimit::kNone;
  double best_seconds = 0.0;
  double best_cost = 0.0;
};

// One E_min for all rows: such that total_samples are right at the smallest row's batch.
void settle_e_min(PlanInputs& inputs, std::span<const int> ranks);

// REQUIRES: a trade-off's e_min is positive.
[[nodiscard]] std::vector<PlanRow> plan_rows(const PlanInputs& inputs, std::span<const int> ranks);

// Preset efficiency and fixed cost as a compute model for this network. The presets were measured
// with 16 bits; float32 reaches the same share of its own peak.
[[nodiscard]] ComputeModel preset_compute(const GpuPreset& gpu, const NetworkCost& network,
                                          const ParallelOptions& parallel = {
                                              .precision = Precision::kBf16});

// Of the network's products in this precision. In float32 LibTorch rounds a convolution's inputs to
// TF32 (its default, which the trainer leaves), and other products' not.
[[nodiscard]] double peak_tflops(const GpuPreset& gpu, const NetworkCost& network,
                                 Precision precision);

[[nodiscard]] nlohmann::ordered_json plan_to_json(const PlanInputs& inputs,
                                                  std::span<const PlanRow> rows);
}  // namespace trireme
