#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "study/bucket_timeline.h"
#include "study/collective_model.h"

namespace trireme {

// Time of one rank's computation: t(b) = fixed + b x per_sample for b samples a step, of whose
// second part forward takes its share and backward the rest.
struct ComputeModel {
  double fixed_seconds = 0.0;  // Launches, optimizer, whatever does not grow with the batch.
  double seconds_per_sample = 0.0;
  double forward_share = 1.0 / 3.0;
  double jitter = 0.0;  // Relative deviation of a rank's time from step to step.
};

// How gradients travel.
struct ReductionPlan {
  std::vector<BucketTime> buckets;
  double bytes_per_gradient = 4.0;
  double bytes_per_parameter = 4.0;  // Gathered, with a sharded optimizer.
  enum class Mode { kAllReduce, kShardOptimizer } mode = Mode::kAllReduce;
  // Who adds: the collective, or each rank, of the slices that all others send it; the sums are
  // then gathered, where the optimizer is not sharded.
  enum class Sum { kInCollective, kAfterExchange } sum = Sum::kInCollective;
  // Samples of a backward pass, of whose step only the last communicates; 0: the global batch /
  // shards, or all of a rank's.
  int64_t micro = 0;
  int64_t shards = 0;
  [[nodiscard]] Collective collective() const;  // The one that gradients take first.
  [[nodiscard]] double samples_per_pass(int num_ranks, double samples_per_rank) const;
};

// Where a step's time goes.
struct StepTime {
  double forward_seconds = 0.0;
  double backward_seconds = 0.0;
  double fixed_seconds = 0.0;
  double straggler_seconds = 0.0;     // Waiting for the slowest of all ranks.
  double comm_seconds = 0.0;          // All collectives, hidden or not.
  double comm_exposed_seconds = 0.0;  // What computation did not hide.
  [[nodiscard]] double total() const {
    return forward_seconds + backward_seconds + fixed_seconds + straggler_seconds +
           comm_exposed_seconds;
  }
};

// A step of `samples_per_rank` (may be a fraction, for a what-if). Buckets are reduced one after
// another, each from when the last backward pass has filled it; the gather of a sharded optimizer's
// parameters hides behind the next step's first forward pass. Where ranks occupy all cores they
// communicate instead of computing, and where there are more of them than cores they take turns.
// The slowest of P ranks takes jitter x sqrt(2 ln P) longer than the mean (largest of P normals).
[[nodiscard]] StepTime predict_step(const ComputeModel& compute, const ReductionPlan& reduction,
                                    const Fabric& fabric, double samples_per_rank);

// A measured throughput.
struct MeasuredStep {
  int num_ranks = 1;
  double samples_per_rank = 0.0;
  double samples_per_second = 0.0;  // Of all ranks.
  [[nodiscard]] double step_seconds() const {
    return num_ranks * samples_per_rank / samples_per_second;
  }
};

// `prior` with fixed_seconds and seconds_per_sample that fit the measurements best: least squares
// of log time. Measurements at one batch a rank cannot tell the two apart; then fixed_seconds stays
// as in `prior`, unless that alone exceeds the measured time. `fabric` is taken at each
// measurement's number of ranks. REQUIRES: one measurement or more.
[[nodiscard]] ComputeModel calibrate_compute(ComputeModel prior, const ReductionPlan& reduction,
                                             const Fabric& fabric,
                                             std::span<const MeasuredStep> measured);
}  // namespace trireme
