#include "study/plan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace trireme {
namespace {
constexpr double kSecondsPerHour = 3600.0;
constexpr double kJitter =
    0.005;  // An assumption: half a percent from rank to rank and step to step.
constexpr double kReservedShare = 0.9;  // Of a GPU's memory: the rest is context and fragments.

double samples_per_second(const PlanInputs& inputs, const Fabric& fabric, double samples_per_rank) {
  const double seconds =
      predict_step(inputs.compute, inputs.reduction, fabric, samples_per_rank).total();
  return fabric.num_ranks * samples_per_rank / seconds;
}

double memory_of(const PlanInputs& inputs, int num_ranks, double samples_per_rank) {
  const auto weights = static_cast<double>(inputs.network.num_parameters());
  const auto trained = static_cast<double>(inputs.network.num_trained());
  const bool is_sharded = inputs.reduction.mode == ReductionPlan::Mode::kShardOptimizer;
  const double states = inputs.memory.bytes_per_state / (is_sharded ? num_ranks : 1);
  const double micro = inputs.memory.micro > 0
                           ? std::min(static_cast<double>(inputs.memory.micro), samples_per_rank)
                           : samples_per_rank;
  return weights * inputs.memory.bytes_per_weight +
         trained * (inputs.memory.bytes_per_trained + states) +
         micro * inputs.memory.bytes_per_stored * inputs.network.stored_elements();
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
double samples_to_target(const PlanInputs& inputs, double planned_batch, double batch) {
  const BatchTradeoff& tradeoff = *inputs.tradeoff;
  const double e_min = tradeoff.e_min > 0.0
                           ? tradeoff.e_min
                           : inputs.total_samples / (1.0 + planned_batch / tradeoff.noise_scale);
  return e_min * (1.0 + batch / tradeoff.noise_scale);
}

// Batches of 1, 2, 4, ... samples a rank, and accumulation beyond what was planned.
void find_best_batch(const PlanInputs& inputs, const Fabric& fabric, PlanRow& row) {
  row.best_seconds = std::numeric_limits<double>::infinity();
  for (double share = 1.0; share <= 65536.0; share *= 2.0) {
    const double batch = share * fabric.num_ranks;
    const double seconds = samples_to_target(inputs, row.global_batch, batch) /
                           samples_per_second(inputs, fabric, share);
    if (seconds < row.best_seconds) {
      row.best_seconds = seconds;
      row.best_batch = batch;
    }
  }
  row.best_cost = row.best_seconds / kSecondsPerHour * fabric.num_ranks * inputs.price_per_hour;
}

PlanRow plan_row(const PlanInputs& inputs, int num_ranks) {
  Fabric fabric = inputs.fabric;
  fabric.num_ranks = num_ranks;
  PlanRow row;
  row.num_ranks = num_ranks;
  row.num_nodes = fabric.num_nodes();
  const bool is_strong = inputs.global_batch > 0.0;
  row.global_batch = is_strong ? inputs.global_batch : inputs.batch_per_rank * num_ranks;
  row.samples_per_rank = row.global_batch / num_ranks;
  if (inputs.tradeoff) find_best_batch(inputs, fabric, row);
  if (row.samples_per_rank < 1.0) {
    row.is_possible = false;
    row.bottleneck = Bottleneck::kBatch;
    return row;
  }
  row.step = predict_step(inputs.compute, inputs.reduction, fabric, row.samples_per_rank);
  double largest = 0.0;
  for (const auto& bucket : inputs.reduction.buckets) {
    largest = std::max(largest, static_cast<double>(bucket.num_elements));
  }
  const bool is_sharded = inputs.reduction.mode == ReductionPlan::Mode::kShardOptimizer;
  row.largest_bucket =
      collective_time(fabric, is_sharded ? Collective::kReduceScatter : Collective::kAllReduce,
                      largest * inputs.reduction.bytes_per_gradient);
  row.samples_per_second = row.global_batch / row.step.total();
  Fabric alone = inputs.fabric;
  alone.num_ranks = 1;
  const double share = is_strong ? row.global_batch : row.samples_per_rank;
  row.efficiency = row.samples_per_second / (num_ranks * samples_per_second(inputs, alone, share));
  row.mfu = row.samples_per_second * inputs.network.training_flops() /
            (num_ranks * inputs.gpu.peak_tflops * 1e12);
  row.memory_bytes = memory_of(inputs, num_ranks, row.samples_per_rank);
  row.fits = row.memory_bytes <= kReservedShare * inputs.gpu.memory_gb * 1e9;
  const double samples = inputs.tradeoff
                             ? samples_to_target(inputs, row.global_batch, row.global_batch)
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

nlohmann::ordered_json row_to_json(const PlanInputs& inputs, const PlanRow& row) {
  nlohmann::ordered_json json = {
      {"ranks", row.num_ranks},           {"nodes", row.num_nodes},
      {"global_batch", row.global_batch}, {"samples_per_rank", row.samples_per_rank},
      {"possible", row.is_possible},      {"bottleneck", bottleneck_name(row.bottleneck)}};
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
  if (inputs.tradeoff) {
    json["best_global_batch"] = row.best_batch;
    json["best_train_seconds"] = row.best_seconds;
    json["best_cost"] = row.best_cost;
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
      return "the network: more samples a rank, 16-bit gradients, a faster network";
    case Bottleneck::kStragglers:
      return "waiting for the slowest rank: look for slow nodes";
    case Bottleneck::kBatch:
      return "the global batch: fewer samples than ranks";
  }
  throw InternalError("a bottleneck without advice");
}

ComputeModel preset_compute(const GpuPreset& gpu, const NetworkCost& network) {
  return {.fixed_seconds = gpu.fixed_ms * 1e-3,
          .seconds_per_sample =
              network.training_flops() / (gpu.compute_efficiency * gpu.peak_tflops * 1e12),
          .jitter = kJitter};
}

std::vector<PlanRow> plan_rows(const PlanInputs& inputs, std::span<const int> ranks) {
  check((inputs.global_batch > 0.0) != (inputs.batch_per_rank > 0.0), "one kind of scaling");
  std::vector<PlanRow> rows;
  for (const int num_ranks : ranks) rows.push_back(plan_row(inputs, num_ranks));
  return rows;
}

nlohmann::ordered_json plan_to_json(const PlanInputs& inputs, std::span<const PlanRow> rows) {
  nlohmann::ordered_json json;
  json["gpu_type"] = inputs.gpu.name;
  json["peak_tflops"] = inputs.gpu.peak_tflops;
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
  json["scaling"] = inputs.global_batch > 0.0 ? "strong" : "weak";
  json["rows"] = nlohmann::ordered_json::array();
  for (const PlanRow& row : rows) json["rows"].push_back(row_to_json(inputs, row));
  return json;
}
}  // namespace trireme
