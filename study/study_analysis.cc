#include "study/study_analysis.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <limits>
#include <map>
#include <tuple>

#include "study/study_verdict.h"
#include "trainer/metric_watch.h"

namespace trireme {
namespace {
using Edge = BatchResult::Edge;

std::vector<Setting> group(std::span<const StudyRun> records) {
  std::map<std::tuple<int64_t, std::string, int64_t, double, int64_t, int64_t>, Setting> groups;
  for (const auto& record : records) {
    if (record.state == StudyRun::State::kAbsent) continue;
    const RunSpec& spec = record.spec;
    Setting& setting = groups[{spec.start.samples, spec.variant, spec.batch, spec.lr, spec.ranks,
                               spec.warmup_samples}];
    setting.batch = spec.batch;
    setting.lr_factor = spec.lr_factor;
    setting.lr = spec.lr;
    setting.ranks = spec.ranks;
    setting.warmup_samples = spec.warmup_samples;
    setting.variant = spec.variant;
    setting.runs.push_back(&record);
    setting.num_diverged += record.state == StudyRun::State::kDiverged ? 1 : 0;
    if (const auto value = record.finished_value()) setting.finals.push_back(*value);
  }
  std::vector<Setting> settings;
  for (auto& [key, setting] : groups) settings.push_back(std::move(setting));
  return settings;
}

// The settings whose batches are compared: ranks change the time and not the metric.
std::vector<Setting> on_ranks(const std::vector<Setting>& settings, int64_t ranks) {
  std::vector<Setting> found;
  std::ranges::copy_if(settings, std::back_inserter(found),
                       [&](const Setting& setting) { return setting.ranks == ranks; });
  return found;
}

// The best mean final metric of each batch, and of these the worst: what every batch reaches.
// Values are times `sign`, so that less is better.
std::optional<double> worst_batch_target(const std::vector<Setting>& settings, double sign) {
  std::map<int64_t, double> lowest;
  for (const auto& setting : settings) {
    if (setting.finals.size() < setting.runs.size() || setting.finals.empty()) continue;
    // The worst over seeds, so that each of them reaches it.
    const double value =
        sign * (sign > 0.0 ? std::ranges::max(setting.finals) : std::ranges::min(setting.finals));
    const auto [found, is_new] = lowest.try_emplace(setting.batch, value);
    if (!is_new) found->second = std::min(found->second, value);
  }
  if (lowest.empty()) return std::nullopt;
  double target = lowest.begin()->second;
  for (const auto& [batch, value] : lowest) target = std::max(target, value);
  return sign * target;
}

bool is_better(const Setting& a, const Setting& b, double sign) {
  if (a.reached_by_all() != b.reached_by_all()) return a.reached_by_all();
  if (a.reached_by_all()) return mean_of(a.samples) < mean_of(b.samples);
  const bool has_a = a.finals.size() == a.runs.size() && !a.finals.empty();
  const bool has_b = b.finals.size() == b.runs.size() && !b.finals.empty();
  if (has_a != has_b) return has_a;
  return has_a && sign * mean_of(a.finals) < sign * mean_of(b.finals);
}

// What is minimised over the learning rate: log samples to target, else log of the final metric.
std::optional<double> score_of(const Setting& setting) {
  if (setting.reached_by_all()) return std::log(mean_of(setting.samples));
  return std::nullopt;
}

// Settings of a batch that differ from `best` in the learning rate only, by rate.
std::vector<const Setting*> rates_around(const std::vector<Setting>& settings,
                                         const Setting& best) {
  std::vector<const Setting*> found;
  for (const auto& setting : settings) {
    const bool is_same = setting.batch == best.batch && setting.variant == best.variant &&
                         setting.ranks == best.ranks &&
                         setting.warmup_samples == best.warmup_samples;
    if (is_same) found.push_back(&setting);
  }
  std::ranges::sort(found, {}, [](const Setting* setting) { return setting->lr; });
  return found;
}

// Vertex of the parabola through three points in log lr, kept between the outer ones.
double parabola_minimum(const std::array<double, 3>& x, const std::array<double, 3>& y) {
  const double a = (y[2] - y[1]) / (x[2] - x[1]);
  const double b = (y[1] - y[0]) / (x[1] - x[0]);
  const double curvature = (a - b) / (x[2] - x[0]);
  if (curvature <= 0.0) return x[1];
  return std::clamp(0.5 * (x[0] + x[1]) - b / (2.0 * curvature), x[0], x[2]);
}

void find_best_rate(const std::vector<Setting>& settings, BatchResult& result) {
  const auto rates = rates_around(settings, *result.best);
  const auto at = static_cast<size_t>(std::ranges::find(rates, result.best) - rates.begin());
  result.best_lr = result.best->lr;
  if (at == 0 || at + 1 == rates.size()) {
    result.edge = at == 0 ? Edge::kLow : Edge::kHigh;
    // A single rate, or a diverged or failing neighbour beyond, is no reason to go further.
    return;
  }
  std::array<double, 3> x = {};
  std::array<double, 3> y = {};
  for (size_t i = 0; i < 3; ++i) {
    const auto score = score_of(*rates[at + i - 1]);
    if (!score) return;
    x.at(i) = std::log(rates[at + i - 1]->lr);
    y.at(i) = *score;
  }
  result.best_lr = std::exp(parabola_minimum(x, y));
}

double late_noise_scale(const Setting& setting) {
  std::vector<double> values;
  for (const auto* run : setting.runs) {
    for (size_t i = run->steps.size() / 2; i < run->steps.size(); ++i) {
      const double value = run->steps[i].noise_scale;
      if (std::isfinite(value) && value > 0.0) values.push_back(value);
    }
  }
  return values.empty() ? 0.0 : quantile_of(values, 0.5);
}

std::vector<BatchResult> best_of_batches(const std::vector<Setting>& settings, int64_t ranks,
                                         double sign) {
  std::vector<BatchResult> batches;  // Settings are by variant and batch already.
  for (const auto& setting : settings) {
    if (setting.ranks != ranks) continue;
    if (batches.empty() || batches.back().batch != setting.batch ||
        batches.back().variant != setting.variant) {
      batches.push_back({.batch = setting.batch, .variant = setting.variant});
    }
    BatchResult& result = batches.back();
    if (result.best == nullptr || is_better(setting, *result.best, sign)) result.best = &setting;
  }
  for (auto& result : batches) {
    if (result.best->reached_by_all()) result.samples = mean_with_interval(result.best->samples);
    if (!result.best->finals.empty()) result.final_value = mean_with_interval(result.best->finals);
    find_best_rate(settings, result);
    const auto rates = finished_rates(*result.best);
    if (!rates.empty()) result.images_per_second = quantile_of(rates, 0.5);
    result.noise_scale = late_noise_scale(*result.best);
  }
  return batches;
}

void add_fit(StudyAnalysis& analysis) {
  const std::string variant = analysis.batches.front().variant;
  for (const auto& batch : analysis.batches) {
    if (batch.variant != variant || !batch.samples) continue;
    analysis.points.batches.push_back({static_cast<double>(batch.batch), batch.best->samples});
    analysis.points.num_runs += static_cast<int64_t>(batch.best->samples.size());
  }
  if (analysis.points.batches.size() >= 2) analysis.fit = fit_tradeoff(analysis.points.batches);
}

// REQUIRES: `batches` by variant.
std::vector<LargestLossless> find_lossless(const StudyOptions& options,
                                           const std::vector<BatchResult>& batches) {
  const double sign = metric_sign(options.metric);
  std::vector<LargestLossless> found;
  for (auto first = batches.begin(); first != batches.end();) {
    const auto last = std::find_if(first, batches.end(), [&](const BatchResult& batch) {
      return batch.variant != first->variant;
    });
    double best = std::numeric_limits<double>::infinity();
    for (auto batch = first; batch != last; ++batch) {
      if (batch->final_value) best = std::min(best, sign * batch->final_value->mean);
    }
    LargestLossless largest{.variant = first->variant};
    for (auto batch = first; batch != last; ++batch) {
      const auto& value = batch->final_value;
      const double most = best + options.tolerance * std::abs(best);
      if (value && sign * value->mean <= most) largest.batch = batch->batch;
    }
    if (largest.batch > 0) found.push_back(std::move(largest));
    first = last;
  }
  return found;
}

std::optional<double> final_of_seed(const Setting& setting, int64_t seed) {
  for (const auto* run : setting.runs) {
    if (run->spec.seed == seed) return run->finished_value();
  }
  return std::nullopt;
}

void compare_with_smallest(std::vector<BatchResult>& batches) {
  const BatchResult* smallest = nullptr;
  for (auto& batch : batches) {
    if (smallest == nullptr || smallest->variant != batch.variant) smallest = &batch;
    std::vector<double> ratios;
    for (const auto* run : batch.best->runs) {
      const auto value = run->finished_value();
      const auto other = final_of_seed(*smallest->best, run->spec.seed);
      if (value && other && *other > 0.0) ratios.push_back(*value / *other - 1.0);
    }
    if (&batch != smallest && !ratios.empty()) batch.over_smallest = mean_with_interval(ratios);
  }
}
std::optional<MeanInterval> scaled(const std::optional<MeanInterval>& value, double factor) {
  if (!value) return std::nullopt;
  const auto& [mean, interval] = *value;
  return MeanInterval{.mean = mean * factor,
                      .interval = {interval.low * factor, interval.high * factor}};
}
}  // namespace

std::optional<MeanInterval> BatchResult::steps() const {
  return scaled(samples, 1.0 / static_cast<double>(batch));
}

std::optional<MeanInterval> BatchResult::seconds() const {
  if (images_per_second <= 0.0) return std::nullopt;
  return scaled(samples, 1.0 / images_per_second);
}

StudyAnalysis analyse_study(const StudyOptions& options, std::span<const StudyRun> records) {
  StudyAnalysis analysis;
  analysis.settings = group(records);
  if (analysis.settings.empty()) return analysis;
  analysis.ranks = std::ranges::min(analysis.settings, {}, &Setting::ranks).ranks;
  const double sign = metric_sign(options.metric);
  const auto compared = on_ranks(analysis.settings, analysis.ranks);
  // Branches are compared at equal samples only.
  const auto common_target =
      options.forks.empty() ? worst_batch_target(compared, sign) : std::nullopt;
  using TargetFrom = StudyAnalysis::TargetFrom;
  if (options.target) {
    analysis.target = *options.target;
    analysis.target_from = TargetFrom::kFile;
  } else if (common_target) {
    analysis.target = *common_target;
    analysis.target_from = TargetFrom::kWorstBatch;
  }
  for (auto& setting : analysis.settings) {
    if (analysis.target_from == TargetFrom::kNone) break;
    for (const auto* run : setting.runs) {
      if (run->state != StudyRun::State::kFinished) continue;
      if (const auto samples = run->samples_to(analysis.target))
        setting.samples.push_back(*samples);
    }
  }
  analysis.batches = best_of_batches(analysis.settings, analysis.ranks, sign);
  compare_with_smallest(analysis.batches);
  add_fit(analysis);
  analysis.lr_law = find_lr_law(analysis);
  analysis.common = compare_common_numbers(compared, Pairs::kAll);
  analysis.common_rates = compare_common_numbers(compared, Pairs::kSameBatch);
  analysis.common_batches = compare_common_numbers(compared, Pairs::kOtherBatch);
  analysis.lossless = find_lossless(options, analysis.batches);
  analysis.scaling = scaling_over_ranks(analysis.settings);
  analysis.rank_loss_difference = rank_loss_difference(records);
  analysis.verdict = write_verdict(options, analysis);
  return analysis;
}

std::vector<NextFactor> next_factors(const StudyAnalysis& analysis) {
  std::vector<NextFactor> next;
  for (const auto& batch : analysis.batches) {
    if (batch.edge == Edge::kInside) continue;
    const auto rates = rates_around(analysis.settings, *batch.best);
    const bool is_low = batch.edge == Edge::kLow;
    const double ratio = rates.size() < 2 ? 2.0
                         : is_low         ? rates[1]->lr_factor / rates[0]->lr_factor
                                  : rates.back()->lr_factor / rates[rates.size() - 2]->lr_factor;
    next.push_back({.batch = batch.batch,
                    .variant = batch.variant,
                    .lr_factor = batch.best->lr_factor * (is_low ? 1.0 / ratio : ratio)});
  }
  return next;
}
}  // namespace trireme
