#include "study/step_model.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace trireme {
namespace {
constexpr double kRatio = 0.6180339887498949;

template <typename Function>
double golden_minimum(Function f, double low, double high) {
  double left = high - kRatio * (high - low);
  double right = low + kRatio * (high - low);
  double f_left = f(left);
  double f_right = f(right);
  for (int i = 0; i < 50; ++i) {
    if (f_left < f_right) {
      high = right;
      right = left;
      f_right = f_left;
      left = high - kRatio * (high - low);
      f_left = f(left);
    } else {
      low = left;
      left = right;
      f_left = f_right;
      right = low + kRatio * (high - low);
      f_right = f(right);
    }
  }
  return 0.5 * (low + high);
}

// When the last bucket's reduction ends, counted from backward's start.
double reduce_end(const ReductionPlan& reduction, const Fabric& fabric, double backward_seconds,
                  double& comm_seconds) {
  const bool is_sharded = reduction.mode == ReductionPlan::Mode::kShardOptimizer;
  const Collective kind = is_sharded ? Collective::kReduceScatter : Collective::kAllReduce;
  double end = 0.0;
  for (const auto& bucket : reduction.buckets) {
    const double bytes = reduction.bytes_per_gradient * static_cast<double>(bucket.num_elements);
    const double seconds = collective_time(fabric, kind, bytes).seconds;
    end = std::max(end, bucket.ready_share * backward_seconds) + seconds;
    comm_seconds += seconds;
  }
  return end;
}

double gather_seconds(const ReductionPlan& reduction, const Fabric& fabric) {
  double seconds = 0.0;
  for (const auto& bucket : reduction.buckets) {
    const double bytes = reduction.bytes_per_parameter * static_cast<double>(bucket.num_elements);
    seconds += collective_time(fabric, Collective::kAllGather, bytes).seconds;
  }
  return seconds;
}

double log_loss(const ComputeModel& compute, const ReductionPlan& reduction, const Fabric& fabric,
                std::span<const MeasuredStep> measured) {
  double loss = 0.0;
  for (const auto& point : measured) {
    Fabric there = fabric;
    there.num_ranks = point.num_ranks;
    const double predicted =
        predict_step(compute, reduction, there, point.samples_per_rank).total();
    const double error = std::log(predicted / point.step_seconds());
    loss += error * error;
  }
  return loss;
}

// The best seconds_per_sample for a given fixed time.
ComputeModel with_fixed(ComputeModel compute, double fixed_seconds, const ReductionPlan& reduction,
                        const Fabric& fabric, std::span<const MeasuredStep> measured) {
  compute.fixed_seconds = fixed_seconds;
  double largest = 0.0;
  for (const auto& point : measured) {
    largest = std::max(largest, point.step_seconds() / point.samples_per_rank);
  }
  const double logarithm = golden_minimum(
      [&](double log_seconds) {
        ComputeModel trial = compute;
        trial.seconds_per_sample = std::exp(log_seconds);
        return log_loss(trial, reduction, fabric, measured);
      },
      std::log(largest * 1e-4), std::log(largest * 1.01));
  compute.seconds_per_sample = std::exp(logarithm);
  return compute;
}
}  // namespace

StepTime predict_step(const ComputeModel& compute, const ReductionPlan& reduction,
                      const Fabric& fabric, double samples_per_rank) {
  check(samples_per_rank > 0.0, "a rank has samples");
  const double turns = fabric.ranks_per_core();
  const double work = compute.seconds_per_sample * samples_per_rank * turns;
  StepTime time;
  time.forward_seconds = work / 3.0;
  time.backward_seconds = 2.0 * work / 3.0;
  time.fixed_seconds = compute.fixed_seconds * turns;
  if (fabric.num_ranks == 1) return time;
  time.straggler_seconds = (work + time.fixed_seconds) * compute.jitter *
                           std::sqrt(2.0 * std::log(static_cast<double>(fabric.num_ranks)));
  const double end = reduce_end(reduction, fabric, time.backward_seconds, time.comm_seconds);
  time.comm_exposed_seconds =
      fabric.can_overlap() ? std::max(0.0, end - time.backward_seconds) : time.comm_seconds;
  if (reduction.mode == ReductionPlan::Mode::kShardOptimizer) {
    const double gather = gather_seconds(reduction, fabric);
    time.comm_seconds += gather;
    time.comm_exposed_seconds +=
        fabric.can_overlap() ? std::max(0.0, gather - time.forward_seconds) : gather;
  }
  return time;
}

ComputeModel calibrate_compute(ComputeModel prior, const ReductionPlan& reduction,
                               const Fabric& fabric, std::span<const MeasuredStep> measured) {
  check(!measured.empty(), "a calibration needs a measurement");
  const auto [least, most] =
      std::ranges::minmax(measured, {}, [](const auto& point) { return point.samples_per_rank; });
  const double shortest = std::ranges::min(measured, {}, [](const auto& point) {
                            return point.step_seconds();
                          }).step_seconds();
  if (least.samples_per_rank == most.samples_per_rank) {
    const double fixed = std::min(prior.fixed_seconds, 0.5 * shortest);
    return with_fixed(prior, fixed, reduction, fabric, measured);
  }
  const double fixed = golden_minimum(
      [&](double trial) {
        return log_loss(with_fixed(prior, trial, reduction, fabric, measured), reduction, fabric,
                        measured);
      },
      0.0, shortest);
  return with_fixed(prior, fixed, reduction, fabric, measured);
}
}  // namespace trireme
