#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "study/points.h"
#include "study/statistics.h"

namespace trireme {

// The trade-off between steps S and samples E to a target at global batch B (McCandlish et al., "An
// Empirical Model of Large-Batch Training", 2018): (S / S_min - 1)(E / E_min - 1) = 1, which is
// E(B) = E_min (1 + B / B_noise) and S(B) = S_min (1 + B_noise / B) with B_noise = E_min / S_min,
// the critical batch: there a run takes twice the fewest steps and twice the fewest samples.
struct TradeoffCurve {
  double e_min = 0.0;        // Samples, as B goes to 0.
  double noise_scale = 0.0;  // B_noise, samples. 0 or infinity: see TradeoffFit::Identified.
  [[nodiscard]] double s_min() const { return e_min / noise_scale; }  // Steps, as B grows.
  [[nodiscard]] double samples_at(double batch) const {
    return e_min * (1.0 + batch / noise_scale);
  }
  [[nodiscard]] double steps_at(double batch) const { return samples_at(batch) / batch; }
};

// Least squares in log E on the mean of each batch; the noise scale is searched over 2^-10 times
// the smallest to 2^10 times the largest batch.
// REQUIRES: two batches or more, positive, as many means.
[[nodiscard]] TradeoffCurve fit_curve(std::span<const double> batches,
                                      std::span<const double> mean_samples);

// The largest measured batch, predicted by a fit to the others.
struct HeldOut {
  double batch = 0.0;
  double predicted = 0.0;
  double measured = 0.0;
  [[nodiscard]] double miss() const { return predicted / measured - 1.0; }
};

struct BootstrapOptions {
  int64_t num_draws = 10000;
  uint64_t seed = 1;
};

// A fit with 95 % intervals.
//
// Runs are resampled within each batch, deviations grown by sqrt(n / (n - 1)) and the interval by
// the ratio of Student's t to the normal quantile at the pooled degrees of freedom, because the
// plain percentile bootstrap covers too little at few runs. A batch of fewer than 10 runs borrows
// the relative deviations of all batches, and of a batch of more than 100 the resampled mean is
// drawn from the normal distribution that it has; where every batch has one run, the residuals of
// the fit serve, with (number of batches - 2) degrees of freedom. The interval is that of chance
// between runs: it knows nothing of a wrong model or of learning rates that were not tuned.
struct TradeoffFit {
  TradeoffCurve curve;
  std::optional<Interval> e_min_interval;        // Absent: no two runs and no third batch.
  std::optional<Interval> noise_scale_interval;  // `high` is infinity where the data allow that.
  // kTooHigh: samples grow no more than chance over the measured batches, so noise_scale is only
  // known to be large; kTooLow: they grow as the batch itself.
  enum class Identified { kYes, kTooHigh, kTooLow } identified = Identified::kYes;
  double residual_max = 0.0;        // Largest |fit / mean - 1| over the batches.
  std::optional<HeldOut> held_out;  // Absent for fewer than three batches.
};

// Throws InputError for fewer than two batches.
[[nodiscard]] TradeoffFit fit_tradeoff(std::span<const BatchRuns> runs,
                                       const BootstrapOptions& options = {});
}  // namespace trireme
