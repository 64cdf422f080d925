#include "study/tradeoff_fit.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/normal_quantile.h"

namespace trireme {
namespace {
constexpr double kRangeFactor = 1024.0;  // How far beyond the batches the noise scale is searched.
constexpr int kNumCoarse = 64;
constexpr int kNumGolden = 40;
constexpr size_t kMinRunsAlone = 10;   // Fewer, and a batch borrows the deviations of all.
constexpr size_t kMaxRunsDrawn = 100;  // Of more, the mean of as many draws is a normal number.
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Fits log E = log E_min + log(1 + B / n): for each n the best E_min is known in closed form, which
// leaves a search over log n.
class LogFitter {
 public:
  explicit LogFitter(std::span<const double> batches)
      : batches_(batches.begin(), batches.end()), shape_(batches.size()) {
    const auto [smallest, largest] = std::ranges::minmax(batches_);
    low_ = std::log(smallest / kRangeFactor);
    high_ = std::log(largest * kRangeFactor);
  }

  [[nodiscard]] TradeoffCurve fit(std::span<const double> log_means) {
    const double step = (high_ - low_) / kNumCoarse;
    int best = 0;
    double best_loss = kInfinity;
    for (int i = 0; i <= kNumCoarse; ++i) {
      const double loss = loss_at(low_ + step * i, log_means);
      if (loss < best_loss) {
        best_loss = loss;
        best = i;
      }
    }
    if (best == 0) return {.e_min = e_min_at(low_, log_means), .noise_scale = 0.0};
    if (best == kNumCoarse) return {.e_min = e_min_at(high_, log_means), .noise_scale = kInfinity};
    const double log_noise = golden(low_ + step * (best - 1), low_ + step * (best + 1), log_means);
    return {.e_min = e_min_at(log_noise, log_means), .noise_scale = std::exp(log_noise)};
  }

 private:
  // The mean of log E - log(1 + B / n), whose deviations shape_ then holds.
  double offset_at(double log_noise, std::span<const double> log_means) {
    const double noise = std::exp(log_noise);
    double sum = 0.0;
    for (size_t i = 0; i < batches_.size(); ++i) {
      shape_[i] = log_means[i] - std::log1p(batches_[i] / noise);
      sum += shape_[i];
    }
    return sum / static_cast<double>(batches_.size());
  }

  double loss_at(double log_noise, std::span<const double> log_means) {
    const double offset = offset_at(log_noise, log_means);
    double loss = 0.0;
    for (const double value : shape_) loss += (value - offset) * (value - offset);
    return loss;
  }

  double e_min_at(double log_noise, std::span<const double> log_means) {
    return std::exp(offset_at(log_noise, log_means));
  }

  double golden(double low, double high, std::span<const double> log_means) {
    constexpr double kRatio = 0.6180339887498949;
    double left = high - kRatio * (high - low);
    double right = low + kRatio * (high - low);
    double loss_left = loss_at(left, log_means);
    double loss_right = loss_at(right, log_means);
    for (int i = 0; i < kNumGolden; ++i) {
      if (loss_left < loss_right) {
        high = right;
        right = left;
        loss_right = loss_left;
        left = high - kRatio * (high - low);
        loss_left = loss_at(left, log_means);
      } else {
        low = left;
        left = right;
        loss_left = loss_right;
        right = low + kRatio * (high - low);
        loss_right = loss_at(right, log_means);
      }
    }
    return 0.5 * (low + high);
  }

  std::vector<double> batches_;
  std::vector<double> shape_;
  double low_ = 0.0;
  double high_ = 0.0;
};

// What chance does to the mean of a batch's runs, in log E.
class Resampler {
 public:
  Resampler(std::span<const BatchRuns> runs, std::span<const double> log_means,
            std::span<const double> log_fit)
      : runs_(runs), log_means_(log_means) {
    for (const auto& batch : runs) {
      const auto count = static_cast<double>(batch.samples.size());
      degrees_ += static_cast<int64_t>(batch.samples.size()) - 1;
      means_.push_back(mean_of(batch.samples));
      errors_.push_back(standard_deviation_of(batch.samples) * std::sqrt(count - 1.0) / count);
      if (batch.samples.size() < 2) continue;
      double mean = 0.0;
      for (const double value : batch.samples) mean += std::log(value) / count;
      for (const double value : batch.samples) {
        pool_.push_back((std::log(value) - mean) * std::sqrt(count / (count - 1.0)));
      }
    }
    if (!pool_.empty()) return;
    degrees_ = static_cast<int64_t>(runs.size()) - 2;
    if (degrees_ < 1) return;
    const double growth =
        std::sqrt(static_cast<double>(runs.size()) / static_cast<double>(degrees_));
    for (size_t i = 0; i < runs.size(); ++i) {
      pool_.push_back((log_means[i] - log_fit[i]) * growth);
      pool_.push_back(-pool_.back());
    }
  }

  [[nodiscard]] bool can_draw() const { return !pool_.empty(); }
  // By how much the percentile interval is too short.
  [[nodiscard]] double growth() const {
    return student_t_quantile(0.975, degrees_) / normal_quantile(0.975);
  }

  void draw(ResamplingRandom& random, std::span<double> log_means) const {
    for (size_t i = 0; i < runs_.size(); ++i) {
      const auto& samples = runs_[i].samples;
      double sum = 0.0;
      const auto count = static_cast<double>(samples.size());
      if (samples.size() < kMinRunsAlone) {
        for (size_t k = 0; k < samples.size(); ++k) sum += pool_[random.index(pool_.size())];
        log_means[i] = log_means_[i] + sum / count;
        continue;
      }
      if (samples.size() > kMaxRunsDrawn) {
        sum = count * (means_[i] + errors_[i] * random.normal());
      } else {
        for (size_t k = 0; k < samples.size(); ++k) sum += samples[random.index(samples.size())];
      }
      const double deviation = std::log(sum / count) - log_means_[i];
      log_means[i] = log_means_[i] + deviation * std::sqrt(count / (count - 1.0));
    }
  }

 private:
  std::span<const BatchRuns> runs_;
  std::span<const double> log_means_;
  std::vector<double> pool_;
  std::vector<double> means_;
  std::vector<double> errors_;  // Deviations of a mean of as many draws.
  int64_t degrees_ = 0;
};

// The 95 % interval of draws of log x around log `estimate`, grown by `growth`.
Interval grown_interval(const std::vector<double>& log_draws, double estimate, double growth) {
  const double center = std::log(estimate);
  const auto end = [&](double probability) {
    return std::exp(center + growth * (quantile_of(log_draws, probability) - center));
  };
  return {end(0.025), end(0.975)};
}

std::vector<double> batches_of(std::span<const BatchRuns> runs) {
  std::vector<double> batches;
  for (const auto& batch : runs) batches.push_back(batch.batch);
  return batches;
}

std::vector<double> log_means_of(std::span<const BatchRuns> runs) {
  std::vector<double> means;
  for (const auto& batch : runs) means.push_back(std::log(mean_of(batch.samples)));
  return means;
}

// A curve at the edge of the search takes the finite value there, so that it can be drawn.
TradeoffCurve made_finite(TradeoffCurve curve, const std::vector<double>& batches) {
  if (curve.noise_scale == 0.0) {
    curve.noise_scale = std::ranges::min(batches) / kRangeFactor;
  } else if (std::isinf(curve.noise_scale)) {
    curve.noise_scale = std::ranges::max(batches) * kRangeFactor;
  }
  return curve;
}

void add_intervals(std::span<const BatchRuns> runs, const std::vector<double>& batches,
                   const std::vector<double>& log_means, const BootstrapOptions& options,
                   TradeoffFit& fit) {
  std::vector<double> log_fit;
  for (const double batch : batches) log_fit.push_back(std::log(fit.curve.samples_at(batch)));
  const Resampler resampler(runs, log_means, log_fit);
  if (!resampler.can_draw() || options.num_draws < 1) return;
  LogFitter fitter(batches);
  ResamplingRandom random(options.seed);
  std::vector<double> drawn(batches.size());
  std::vector<double> log_noise;
  std::vector<double> log_e_min;
  for (int64_t i = 0; i < options.num_draws; ++i) {
    resampler.draw(random, drawn);
    const TradeoffCurve curve = fitter.fit(drawn);
    log_noise.push_back(std::log(curve.noise_scale));
    log_e_min.push_back(std::log(curve.e_min));
  }
  fit.noise_scale_interval = grown_interval(log_noise, fit.curve.noise_scale, resampler.growth());
  fit.e_min_interval = grown_interval(log_e_min, fit.curve.e_min, resampler.growth());
}
}  // namespace

TradeoffCurve fit_curve(std::span<const double> batches, std::span<const double> mean_samples) {
  check(batches.size() == mean_samples.size() && batches.size() >= 2, "a fit needs two batches");
  std::vector<double> log_means;
  for (const double samples : mean_samples) log_means.push_back(std::log(samples));
  return LogFitter(batches).fit(log_means);
}

TradeoffFit fit_tradeoff(std::span<const BatchRuns> runs, const BootstrapOptions& options) {
  if (runs.size() < 2) {
    throw InputError(
        "the fit needs runs at two batch sizes or more (three to tell how good it is), but there "
        "is only one.");
  }
  const std::vector<double> batches = batches_of(runs);
  const std::vector<double> log_means = log_means_of(runs);
  TradeoffFit fit;
  fit.curve = LogFitter(batches).fit(log_means);
  using Identified = TradeoffFit::Identified;
  if (fit.curve.noise_scale == 0.0) fit.identified = Identified::kTooLow;
  if (std::isinf(fit.curve.noise_scale)) fit.identified = Identified::kTooHigh;
  fit.curve = made_finite(fit.curve, batches);
  for (size_t i = 0; i < runs.size(); ++i) {
    const double ratio = fit.curve.samples_at(batches[i]) / std::exp(log_means[i]);
    fit.residual_max = std::max(fit.residual_max, std::abs(ratio - 1.0));
  }
  add_intervals(runs, batches, log_means, options, fit);
  if (runs.size() >= 3) {
    const auto others = runs.first(runs.size() - 1);
    const auto fewer = batches_of(others);
    TradeoffCurve curve = LogFitter(fewer).fit(log_means_of(others));
    curve = made_finite(curve, fewer);
    fit.held_out = HeldOut{.batch = batches.back(),
                           .predicted = curve.samples_at(batches.back()),
                           .measured = std::exp(log_means.back())};
  }
  return fit;
}
}  // namespace trireme
