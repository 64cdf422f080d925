#include "study/plan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace trireme {
namespace {
constexpr double kSecondsPerHour = 3600.0;
constexpr double kJitter =
    0.005;  // An assumption: half a percent from rank to rank and step to step.
constexpr double kLargeMessage = 16.0 * (1 << 30);
constexpr double kReservedShare = 0.9;  // Of a GPU's memory: the rest is context and fragments.

double peak_of(const GpuPreset& gpu, LayerCost::Kernel kernel, Precision precision) {
  if (precision != Precision::kFp32) return gpu.peak_tflops;
  return kernel == LayerCost::Kernel::kConvolution ? gpu.peak_tf32_tflops : gpu.peak_fp32_tflops;
}

// Of one sample, at the peak.
struct PeakSeconds {
  double forward = 0.0;
  double backward = 0.0;
  double recomputed = 0.0;  // With activation checkpointing, part of backward in time.
};
PeakSeconds peak_seconds(const GpuPreset& gpu, const NetworkCost& network, Precision precision) {
  PeakSeconds seconds;
  for (const auto& layer : network.layers) {
    const double per_mac = 2.0 / (peak_of(gpu, layer.kernel, precision) * 1e12);
    seconds.forward += per_mac * layer.macs;
    seconds.backward += per_mac * layer.backward_macs();
    if (layer.block >= 0) seconds.recomputed += per_mac * layer.macs;
  }
  return seconds;
}

double samples_per_second(const PlanInputs& inputs, const ReductionPlan& reduction,
                          const Fabric& fabric, double samples_per_rank) {
  const double seconds = predict_step(inputs.compute, reduction, fabric, samples_per_rank).total();
  return fabric.num_ranks * samples_per_rank / seconds;
}

ReductionPlan reduction_of(const PlanInputs& inputs, const RunPlan& run) {
  ReductionPlan reduction = inputs.reduction;
  reduction.micro = run.micro;
  return reduction;
}

// What exchanged slices take beside the gradients: what is sent where it is not they, what comes,
// and, with shards, the sums of a rank's pieces so far.
double exchange_bytes_per_trained(const PlanInputs& inputs, const RunPlan& run, int num_ranks) {
  const bool exchanges = inputs.reduction.sum == ReductionPlan::Sum::kAfterExchange;
  const double partial_sums = 4.0 * std::log2(static_cast<double>(run.pieces_per_rank));
  return (exchanges && num_ranks > 1 ? 4.0 : 0.0) + partial_sums;
}

double memory_of(const PlanInputs& inputs, const RunPlan& run, int num_ranks) {
  const auto weights = static_cast<double>(inputs.network.num_parameters());
  const auto trained = static_cast<double>(inputs.network.num_trained());
  const bool is_sharded = inputs.reduction.mode == ReductionPlan::Mode::kShardOptimizer;
  const double states = inputs.memory.bytes_per_state / (is_sharded ? num_ranks : 1);
  const double stored = inputs.config.parallel.activation_checkpointing
                            ? inputs.network.checkpointed_elements()
                            : inputs.network.stored_elements();
  return weights * inputs.memory.bytes_per_weight +
         trained * (inputs.memory.bytes_per_trained + states +
                    exchange_bytes_per_trained(inputs, run, num_ranks)) +
         static_cast<double>(run.micro) * inputs.memory.bytes_per_stored * stored;
}

bool fits(const PlanInputs& inputs, double memory_bytes) {
  return memory_bytes <= kReservedShare * inputs.gpu.memory_gb * 1e9;
}

// How the trainer would cut a step; null where it refuses, and why in `refusal`.
std::optional<RunPlan> cut_run(const Config& config, int num_ranks, std::string& refusal) {
  try {
    return plan_run(config, num_ranks, 1);  // The number of samples sets only that of the steps.
  } catch (const UsageError& error) {
    refusal = error.what();
    return std::nullopt;
  }
}

double planned_batch(const Config& config, int num_ranks) {
  return static_cast<double>(config.batch.global > 0 ? config.batch.global
                                                     : config.batch.per_rank * num_ranks);
}

Bottleneck bottleneck_of(const StepTime& step) {
  const double work = step.forward_seconds + step.backward_seconds;
  const std::array<std::pair<double, Bottleneck>, 4> parts = {
      {{work, Bottleneck::kCompute},
       {step.fixed_seconds, Bottleneck::kFixed},
       {step.comm_exposed_seconds, Bottleneck::kNetwork},
       {step.straggler_seconds, Bottleneck::kStragglers}}};
  // Computation is what is wanted; the next bottleneck is the largest of the rest once it counts.
  const auto worst = std::ranges::max_element(parts.begin() + 1, parts.end(), {},
                                              [](const auto& part) { return part.first; });
  return worst->first > 0.1 * step.total() ? worst->second : Bottleneck::kCompute;
}

// Samples to the target at `batch`.
double samples_to_target(const BatchTradeoff& tradeoff, double batch) {
  return tradeoff.e_min * (1.0 + batch / tradeoff.noise_scale);
}

// The smallest batch, and 2, 4, ... times that, in CONFIG's micro-batches.
void find_best_batch(const PlanInputs& inputs, const Fabric& fabric, PlanRow& row) {
  constexpr double kLargestBatch = 1e15;
  Config config = inputs.config;
  const int64_t num_pieces = std::max<int64_t>(config.parallel.shards, fabric.num_ranks);
  const auto smallest = static_cast<double>(num_pieces) *
                        static_cast<double>(std::max<int64_t>(config.batch.micro, 1));
  row.best_seconds = std::numeric_limits<double>::infinity();
  for (double batch = smallest; batch < kLargestBatch; batch *= 2.0) {
    config.batch = {.global = static_cast<int64_t>(batch), .micro = config.batch.micro};
    std::string refusal;
    const auto run = cut_run(config, fabric.num_ranks, refusal);
    if (!run) return;
    const double rate =
        samples_per_second(inputs, reduction_of(inputs, *run), fabric, batch / fabric.num_ranks);
    const double seconds = samples_to_target(*inputs.tradeoff, batch) / rate;
    const bool is_better = seconds < row.best_seconds;
    if (!fits(inputs, memory_of(inputs, *run, fabric.num_ranks))) {  // Nor do larger ones.
      if (is_better) row.best_limit = BatchLimit::kMemory;
      break;
    }
    if (!is_better) continue;
    row.best_seconds = seconds;
    row.best_batch = batch;
  }
  if (row.best_batch > kNoiseScalesKnown * inputs.tradeoff->noise_scale) {
    row.best_limit = BatchLimit::kNoiseScale;
  }
  row.best_cost = row.best_seconds / kSecondsPerHour * fabric.num_ranks * inputs.price_per_hour;
}

PlanRow plan_row(const PlanInputs& inputs, int num_ranks) {
  Fabric fabric = inputs.fabric;
  fabric.num_ranks = num_ranks;
  PlanRow row;
  row.num_ranks = num_ranks;
  row.num_nodes = fabric.num_nodes();
  row.global_batch = planned_batch(inputs.config, num_ranks);
  row.samples_per_rank = row.global_batch / num_ranks;
  row.all_reduce_bus_gbps = num_ranks > 1 ? all_reduce_bus_gbps(fabric, kLargeMessage) : 0.0;
  if (inputs.tradeoff) find_best_batch(inputs, fabric, row);
  const auto run = cut_run(inputs.config, num_ranks, row.refusal);
  if (!run) {
    row.is_possible = false;
    row.bottleneck = Bottleneck::kBatch;
    return row;
  }
  const ReductionPlan reduction = reduction_of(inputs, *run);
  row.step = predict_step(inputs.compute, reduction, fabric, row.samples_per_rank);
  double largest = 0.0;
  for (const auto& bucket : reduction.buckets) {
    largest = std::max(largest, static_cast<double>(bucket.num_elements));
  }
  row.largest_bucket =
      collective_time(fabric, reduction.collective(), largest * reduction.bytes_per_gradient);
  row.samples_per_second = row.global_batch / row.step.total();
  Fabric alone = inputs.fabric;
  alone.num_ranks = 1;
  const double share = inputs.config.batch.global > 0 ? row.global_batch : row.samples_per_rank;
  row.efficiency =
      row.samples_per_second / (num_ranks * samples_per_second(inputs, reduction, alone, share));
  row.mfu = row.samples_per_second * inputs.network.training_flops() /
            (num_ranks * 1e12 *
             peak_tflops(inputs.gpu, inputs.network, inputs.config.parallel.precision));
  row.memory_bytes = memory_of(inputs, *run, num_ranks);
  row.fits = fits(inputs, row.memory_bytes);
  const double samples = inputs.tradeoff ? samples_to_target(*inputs.tradeoff, row.global_batch)
                                         : inputs.total_samples;
  row.train_seconds = samples / row.samples_per_second;
  row.cost = row.train_seconds / kSecondsPerHour * num_ranks * inputs.price_per_hour;
  row.bottleneck = bottleneck_of(row.step);
  return row;
}

const char* bottleneck_name(Bottleneck bottleneck) {
  constexpr std::array<const char*, 5> kNames = {"compute", "fixed", "network", "stragglers",
                                                 "batch"};
  return kNames.at(static_cast<size_t>(bottleneck));
}

const char* limit_name(BatchLimit limit) {
  constexpr std::array<const char*, 3> kNames = {"none", "memory", "noise_scale"};
  return kNames.at(static_cast<size_t>(limit));
}

nlohmann::ordered_json row_to_json(const PlanInputs& inputs, const PlanRow& row) {
  nlohmann::ordered_json json = {
      {"ranks", row.num_ranks},           {"nodes", row.num_nodes},
      {"global_batch", row.global_batch}, {"samples_per_rank", row.samples_per_rank},
      {"possible", row.is_possible},      {"bottleneck", bottleneck_name(row.bottleneck)}};
  if (row.num_ranks > 1) json["all_reduce_bus_gbps"] = row.all_reduce_bus_gbps;
  if (!row.is_possible) json["reason"] = row.refusal;
  if (row.is_possible) {
    json["step_seconds"] = row.step.total();
    json["forward_seconds"] = row.step.forward_seconds;
    json["backward_seconds"] = row.step.backward_seconds;
    json["fixed_seconds"] = row.step.fixed_seconds;
    json["straggler_seconds"] = row.step.straggler_seconds;
    json["comm_seconds"] = row.step.comm_seconds;
    json["comm_exposed_seconds"] = row.step.comm_exposed_seconds;
    json["algorithm"] = algorithm_name(row.largest_bucket.algorithm);
    json["protocol"] = protocol_name(row.largest_bucket.protocol);
    json["images_per_second"] = row.samples_per_second;
    json["efficiency"] = row.efficiency;
    json["mfu"] = row.mfu;
    json["memory_bytes"] = row.memory_bytes;
    json["fits"] = row.fits;
    json["train_seconds"] = row.train_seconds;
    json["gpu_hours"] = row.train_seconds / kSecondsPerHour * row.num_ranks;
    json["cost"] = row.cost;
  }
  if (row.best_batch > 0.0) {
    json["best_global_batch"] = row.best_batch;
    json["best_train_seconds"] = row.best_seconds;
    json["best_cost"] = row.best_cost;
    json["best_limit"] = limit_name(row.best_limit);
  }
  return json;
}
}  // namespace

std::string advice_on(Bottleneck bottleneck) {
  switch (bottleneck) {
    case Bottleneck::kCompute:
      return "computation: faster GPUs, or more of them";
    case Bottleneck::kFixed:
      return "the fixed cost of a step: more samples a rank";
    case Bottleneck::kNetwork:
      return "the network: more samples a rank, a faster network";
    case Bottleneck::kStragglers:
      return "waiting for the slowest rank: look for slow nodes";
    case Bottleneck::kBatch:
      return "the global batch: it cannot be cut for so many ranks";
  }
  throw InternalError("a bottleneck without advice");
}

double peak_tflops(const GpuPreset& gpu, const NetworkCost& network, Precision precision) {
  const PeakSeconds peak = peak_seconds(gpu, network, precision);
  return network.training_flops() / (peak.forward + peak.backward) / 1e12;
}

ComputeModel preset_compute(const GpuPreset& gpu, const NetworkCost& network,
                            const ParallelOptions& parallel) {
  const PeakSeconds peak = peak_seconds(gpu, network, parallel.precision);
  const double seconds =
      peak.forward + peak.backward + (parallel.activation_checkpointing ? peak.recomputed : 0.0);
  return {.fixed_seconds = gpu.fixed_ms * 1e-3,
          .seconds_per_sample = seconds / gpu.compute_efficiency,
          .forward_share = peak.forward / seconds,
          .jitter = kJitter};
}

void settle_e_min(PlanInputs& inputs, std::span<const int> ranks) {
  check(inputs.tradeoff.has_value() && !ranks.empty(), "a trade-off and rows");
  BatchTradeoff& tradeoff = *inputs.tradeoff;
  tradeoff.reference_batch = planned_batch(inputs.config, std::ranges::min(ranks));
  tradeoff.e_min = inputs.total_samples / (1.0 + tradeoff.reference_batch / tradeoff.noise_scale);
}

std::vector<PlanRow> plan_rows(const PlanInputs& inputs, std::span<const int> ranks) {
  check(!inputs.tradeoff || inputs.tradeoff->e_min > 0.0, "an E_min");
  std::vector<PlanRow> rows;
  for (const int num_ranks : ranks) rows.push_back(plan_row(inputs, num_ranks));
  return rows;
}

nlohmann::ordered_json plan_to_json(const PlanInputs& inputs, std::span<const PlanRow> rows) {
  nlohmann::ordered_json json;
  json["gpu_type"] = inputs.gpu.name;
  json["peak_tflops"] = peak_tflops(inputs.gpu, inputs.network, inputs.config.parallel.precision);
  json["nic_gbps"] = inputs.fabric.nic_gbps;
  json["ranks_per_node"] = inputs.fabric.ranks_per_node;
  json["network"] = {{"class", inputs.network.class_name},
                     {"parameters", inputs.network.num_parameters()},
                     {"trained_parameters", inputs.network.num_trained()},
                     {"tensors", inputs.network.num_tensors()},
                     {"forward_gflops", inputs.network.forward_flops() / 1e9},
                     {"training_gflops", inputs.network.training_flops() / 1e9}};
  json["compute"] = {{"fixed_seconds", inputs.compute.fixed_seconds},
                     {"seconds_per_sample", inputs.compute.seconds_per_sample},
                     {"jitter", inputs.compute.jitter}};
  json["buckets"] = inputs.reduction.buckets.size();
  json["total_samples"] = inputs.total_samples;
  json["price_per_hour"] = inputs.price_per_hour;
  json["scaling"] = inputs.config.batch.global > 0 ? "strong" : "weak";
  if (inputs.tradeoff) {
    json["e_min"] = inputs.tradeoff->e_min;
    if (inputs.tradeoff->reference_batch > 0.0) {
      json["e_min_fits_batch"] = inputs.tradeoff->reference_batch;
    }
  }
  json["rows"] = nlohmann::ordered_json::array();
  for (const PlanRow& row : rows) json["rows"].push_back(row_to_json(inputs, row));
  return json;
}
}  // namespace trireme
