#include "trainer/run_plan.h"

#include <bit>
#include <cmath>
#include <numeric>
#include <string>

#include "core/error.h"

namespace trireme {
namespace {
bool is_power_of_two(int64_t value) {
  return value > 0 && std::has_single_bit(static_cast<uint64_t>(value));
}

void require_divides(int64_t divisor, const std::string& divisor_name, int64_t value,
                     const std::string& value_name) {
  if (value % divisor == 0) return;
  const int64_t below = value / divisor * divisor;
  throw UsageError(
      value_name + " = " + std::to_string(value) + " cannot be divided by " + divisor_name + " = " +
      std::to_string(divisor) + ". Choose values that divide" +
      (below > 0 ? ", for example " + std::to_string(below) + " and " + std::to_string(divisor)
                 : std::string()) +
      ".");
}

BatchSchedule batch_schedule(const BatchOptions& batch, int world_size) {
  std::vector<BatchSchedule::Growth> growth;
  for (size_t i = 0; i < batch.grow_at.size(); ++i) {
    growth.push_back({.at_samples = batch.grow_at[i], .global_batch = batch.grow_to[i]});
  }
  return {batch.global > 0 ? batch.global : batch.per_rank * world_size, growth};
}

// A fraction of the steps is rounded up, but for what multiplication in binary adds.
int64_t warmup_steps(const LrScheduleOptions& schedule, const RunPlan& plan) {
  if (schedule.warmup_samples > 0) {
    return plan.global_batch.step_that_consumes(schedule.warmup_samples);
  }
  if (schedule.warmup_fraction > 0) {
    return static_cast<int64_t>(
        std::ceil(schedule.warmup_fraction * static_cast<double>(plan.steps) - 1e-9));
  }
  return schedule.warmup_steps;
}
}  // namespace

RunPlan plan_run(const Config& config, int world_size, int64_t num_training) {
  RunPlan plan;
  const int64_t shards = config.parallel.shards;
  plan.global_batch = batch_schedule(config.batch, world_size);
  plan.num_pieces = shards > 0 ? shards : world_size;
  plan.pieces_per_rank = plan.num_pieces / world_size;
  if (shards > 0) {
    if (!is_power_of_two(world_size) || world_size > shards) {
      throw UsageError("parallel.shards = " + std::to_string(shards) +
                       " needs a power of two of at most that many ranks; this run has " +
                       std::to_string(world_size) +
                       ". Start another number of ranks, or set shards = 0.");
    }
    if (config.parallel.reduce_precision != Precision::kFp32) {
      throw UsageError(
          "parallel.reduce_precision rounds what ranks send each other, so that results would "
          "depend on their number, which parallel.shards promises not to. Set reduce_precision = "
          "\"fp32\", or shards = 0.");
    }
  }
  plan.micro = config.batch.micro;
  for (const auto& phase : plan.global_batch.phases()) {
    const std::string key = phase.first_step > 1      ? "batch.grow_to"
                            : config.batch.global > 0 ? "batch.global"
                                                      : "batch.per_rank x ranks";
    require_divides(plan.num_pieces, shards > 0 ? "parallel.shards" : "the number of ranks",
                    phase.global_batch, key);
    const int64_t piece = phase.global_batch / plan.num_pieces;
    // A batch that grows keeps its micro-batches, and so its memory and bits.
    if (config.batch.micro == 0) plan.micro = std::gcd(plan.micro, piece);
    require_divides(plan.micro, "batch.micro", piece,
                    shards > 0 ? "a shard's part of the batch (global / shards)"
                               : "a rank's part of the batch (global / ranks)");
  }
  plan.steps = config.run.steps;
  if (plan.steps == 0) {
    const double samples = std::ceil(config.run.epochs * static_cast<double>(num_training));
    plan.steps =
        plan.global_batch.step_that_consumes(std::max<int64_t>(static_cast<int64_t>(samples), 1));
  }
  plan.lr_schedule = config.lr_schedule;
  plan.lr_schedule.warmup_steps = warmup_steps(config.lr_schedule, plan);
  return plan;
}
}  // namespace trireme
