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

// Collectives on the buckets' gradients, one after another.
class GradientTraffic {
 public:
  GradientTraffic(const ReductionPlan& reduction, const Fabric& fabric)
      : reduction_(reduction), fabric_(fabric) {}

  void add(Collective kind, const BucketTime& bucket) {
    const double bytes = reduction_.bytes_per_gradient * static_cast<double>(bucket.num_elements);
    const double seconds = collective_time(fabric_, kind, bytes).seconds;
    end_ += seconds;
    total_ += seconds;
  }
  void wait_until(double time) { end_ = std::max(end_, time); }
  [[nodiscard]] double end() const { return end_; }
  [[nodiscard]] double total() const { return total_; }

 private:
  const ReductionPlan& reduction_;
  const Fabric& fabric_;
  double end_ = 0.0;
  double total_ = 0.0;
};

// From the start of the step's last backward pass. Exchanged slices are summed, and sent on, when
// the bucket that comes `kExchangesAhead` later is full (trainer/reduce/gradient_reducer.cc).
GradientTraffic reduce_gradients(const ReductionPlan& reduction, const Fabric& fabric,
                                 double backward_seconds) {
  constexpr size_t kExchangesAhead = 2;
  const auto& buckets = reduction.buckets;
  const bool gathers = reduction.sum == ReductionPlan::Sum::kAfterExchange &&
                       reduction.mode == ReductionPlan::Mode::kAllReduce;
  GradientTraffic traffic(reduction, fabric);
  for (size_t i = 0; i < buckets.size(); ++i) {
    traffic.wait_until(buckets[i].ready_share * backward_seconds);
    if (gathers && i >= kExchangesAhead) {
      traffic.add(Collective::kAllGather, buckets[i - kExchangesAhead]);
    }
    traffic.add(reduction.collective(), buckets[i]);
  }
  const size_t num_late = gathers ? std::min(buckets.size(), kExchangesAhead) : 0;
  for (size_t i = buckets.size() - num_late; i < buckets.size(); ++i) {
    traffic.add(Collective::kAllGather, buckets[i]);
  }
  return traffic;
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

Collective ReductionPlan::collective() const {
  if (sum == Sum::kAfterExchange) return Collective::kExchange;
  return mode == Mode::kShardOptimizer ? Collective::kReduceScatter : Collective::kAllReduce;
}

double ReductionPlan::samples_per_pass(int num_ranks, double samples_per_rank) const {
  double samples = samples_per_rank;
  if (micro > 0) {
    samples = static_cast<double>(micro);
  } else if (shards > 0) {
    samples = samples_per_rank * num_ranks / static_cast<double>(shards);
  }
  return std::min(samples, samples_per_rank);
}

StepTime predict_step(const ComputeModel& compute, const ReductionPlan& reduction,
                      const Fabric& fabric, double samples_per_rank) {
  check(samples_per_rank > 0.0, "a rank has samples");
  const double turns = fabric.ranks_per_core();
  const double work = compute.seconds_per_sample * samples_per_rank * turns;
  StepTime time;
  time.forward_seconds = work * compute.forward_share;
  time.backward_seconds = work - time.forward_seconds;
  time.fixed_seconds = compute.fixed_seconds * turns;
  if (fabric.num_ranks == 1) return time;
  time.straggler_seconds = (work + time.fixed_seconds) * compute.jitter *
                           std::sqrt(2.0 * std::log(static_cast<double>(fabric.num_ranks)));
  const double pass =
      reduction.samples_per_pass(fabric.num_ranks, samples_per_rank) / samples_per_rank;
  const double backward = pass * time.backward_seconds;
  const GradientTraffic traffic = reduce_gradients(reduction, fabric, backward);
  time.comm_seconds = traffic.total();
  time.comm_exposed_seconds =
      fabric.can_overlap() ? std::max(0.0, traffic.end() - backward) : time.comm_seconds;
  if (reduction.mode == ReductionPlan::Mode::kShardOptimizer) {
    const double gather = gather_seconds(reduction, fabric);
    time.comm_seconds += gather;
    time.comm_exposed_seconds +=
        fabric.can_overlap() ? std::max(0.0, gather - pass * time.forward_seconds) : gather;
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
