#include "trainer/run_plan.h"

#include <bit>
#include <cmath>
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
}  // namespace

RunPlan plan_run(const Config& config, int rank, int world_size, int64_t num_training) {
  RunPlan plan;
  const int64_t shards = config.parallel.shards;
  plan.global_batch =
      config.batch.global > 0 ? config.batch.global : config.batch.per_rank * world_size;
  const std::string batch_key = config.batch.global > 0 ? "batch.global" : "batch.per_rank x ranks";
  if (shards > 0) {
    if (!is_power_of_two(world_size) || world_size > shards) {
      throw UsageError("parallel.shards = " + std::to_string(shards) +
                       " needs a power of two of at most that many ranks; this run has " +
                       std::to_string(world_size) +
                       ". Start another number of ranks, or set shards = 0.");
    }
    require_divides(shards, "parallel.shards", plan.global_batch, batch_key);
    if (config.parallel.reduce_precision != Precision::kFp32) {
      throw UsageError(
          "parallel.reduce_precision rounds what ranks send each other, so that results would "
          "depend on their number, which parallel.shards promises not to. Set reduce_precision = "
          "\"fp32\", or shards = 0.");
    }
  } else {
    require_divides(world_size, "the number of ranks", plan.global_batch, batch_key);
  }
  plan.num_pieces = shards > 0 ? shards : world_size;
  const int64_t piece = plan.global_batch / plan.num_pieces;
  plan.micro = config.batch.micro > 0 ? config.batch.micro : piece;
  require_divides(plan.micro, "batch.micro", piece,
                  shards > 0 ? "a shard's part of the batch (global / shards)"
                             : "a rank's part of the batch (global / ranks)");
  plan.pieces_per_rank = plan.num_pieces / world_size;
  plan.micros_per_piece = piece / plan.micro;
  plan.rank_count = plan.global_batch / world_size;
  plan.rank_first = plan.rank_count * rank;
  plan.steps = config.run.steps;
  if (plan.steps == 0) {
    plan.steps =
        static_cast<int64_t>(std::ceil(config.run.epochs * static_cast<double>(num_training) /
                                       static_cast<double>(plan.global_batch)));
    plan.steps = std::max<int64_t>(plan.steps, 1);
  }
  return plan;
}
}  // namespace trireme
