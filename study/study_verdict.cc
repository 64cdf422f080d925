#include "study/study_verdict.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <tuple>

#include "study/fit_report.h"
#include "trainer/metric_watch.h"

namespace trireme {
namespace {
constexpr int kNumDraws = 1000;
constexpr size_t kMinCommonSeeds = 3;
constexpr size_t kMinResampledSeeds = 5;  // Of fewer, resampling keeps too few different ones.

// log of the best rate of a batch when run i counts weight[i] times.
double best_log_rate(const std::vector<const Setting*>& rates, const std::vector<size_t>& seeds) {
  double best_score = std::numeric_limits<double>::infinity();
  size_t best = 0;
  std::vector<double> scores(rates.size(), std::numeric_limits<double>::infinity());
  for (size_t r = 0; r < rates.size(); ++r) {
    if (!rates[r]->reached_by_all()) continue;
    double sum = 0.0;
    for (const size_t seed : seeds) sum += rates[r]->samples[seed % rates[r]->samples.size()];
    scores[r] = std::log(sum);
    if (scores[r] < best_score) {
      best_score = scores[r];
      best = r;
    }
  }
  const double middle = std::log(rates[best]->lr);
  if (best == 0 || best + 1 == rates.size()) return middle;
  const double left = std::log(rates[best - 1]->lr);
  const double right = std::log(rates[best + 1]->lr);
  const double rise_left = (best_score - scores[best - 1]) / (middle - left);
  const double rise_right = (scores[best + 1] - best_score) / (right - middle);
  const double curvature = (rise_right - rise_left) / (right - left);
  if (!std::isfinite(curvature) || curvature <= 0.0) return middle;
  return std::clamp(0.5 * (left + middle) - rise_left / (2.0 * curvature), left, right);
}

std::string exponent_verdict(double exponent, const std::optional<Interval>& interval) {
  char text[256];
  if (!interval) {
    std::snprintf(text, sizeof(text),
                  "The best learning rate grows as batch^%.2f; one seed gives no interval.",
                  exponent);
    return text;
  }
  const auto holds = [&](double value) {
    return interval->low <= value && value <= interval->high;
  };
  const bool linear = holds(1.0);
  const bool root = holds(0.5);
  const bool constant = holds(0.0);
  const char* rule =
      linear && root && constant ? "which any rule fits: measure more"
      : linear && root           ? "which both the linear and the square-root rule fit"
      : linear                   ? "which the linear rule fits and the square-root rule does not"
      : root && constant ? "which a constant rate and the square-root rule fit, linear does not"
      : root             ? "which the square-root rule fits and the linear rule does not"
      : constant         ? "which a constant learning rate fits, and neither rule"
                         : "which neither the linear nor the square-root rule fits: use a power "
                           "law with this exponent";
  std::snprintf(text, sizeof(text),
                "The best learning rate grows as batch^%.2f (%.2f to %.2f), %s.", exponent,
                interval->low, interval->high, rule);
  return text;
}

struct Pair {
  std::vector<double> a;
  std::vector<double> b;
};

Pair common_finals(const Setting& first, const Setting& second) {
  Pair pair;
  for (const auto* run : first.runs) {
    for (const auto* other : second.runs) {
      if (run->spec.seed != other->spec.seed) continue;
      const auto a = run->finished_value();
      const auto b = other->finished_value();
      if (a && b) {
        pair.a.push_back(*a);
        pair.b.push_back(*b);
      }
    }
  }
  return pair;
}

// Var(A - B) / (Var A + Var B) over the chosen seeds; nullopt where nothing varies.
std::optional<double> variance_ratio(const Pair& pair, const std::vector<size_t>& seeds) {
  std::vector<double> a;
  std::vector<double> b;
  std::vector<double> difference;
  for (const size_t seed : seeds) {
    a.push_back(pair.a[seed]);
    b.push_back(pair.b[seed]);
    difference.push_back(pair.a[seed] - pair.b[seed]);
  }
  const double apart =
      std::pow(standard_deviation_of(a), 2) + std::pow(standard_deviation_of(b), 2);
  if (apart <= 0.0) return std::nullopt;
  return std::pow(standard_deviation_of(difference), 2) / apart;
}

double correlation_of(const Pair& pair) {
  const double mean_a = mean_of(pair.a);
  const double mean_b = mean_of(pair.b);
  double sum = 0.0;
  for (size_t i = 0; i < pair.a.size(); ++i) sum += (pair.a[i] - mean_a) * (pair.b[i] - mean_b);
  const double scale = standard_deviation_of(pair.a) * standard_deviation_of(pair.b) *
                       static_cast<double>(pair.a.size() - 1);
  return scale > 0.0 ? sum / scale : 0.0;
}

// exp of the mean log ratio over pairs: ratios multiply.
std::optional<double> mean_ratio(const std::vector<Pair>& pairs, const std::vector<size_t>& seeds) {
  double sum = 0.0;
  int count = 0;
  for (const auto& pair : pairs) {
    std::vector<size_t> within;
    for (const size_t seed : seeds) within.push_back(seed % pair.a.size());
    const auto ratio = variance_ratio(pair, within);
    if (!ratio || *ratio <= 0.0) continue;
    sum += std::log(*ratio);
    ++count;
  }
  if (count == 0) return std::nullopt;
  return std::exp(sum / count);
}

std::vector<size_t> counted(size_t count) {
  std::vector<size_t> all(count);
  for (size_t i = 0; i < count; ++i) all[i] = i;
  return all;
}

std::vector<size_t> resampled(size_t count, ResamplingRandom& random) {
  std::vector<size_t> drawn(count);
  for (auto& index : drawn) index = random.index(count);
  return drawn;
}

const char* best_word(const std::string& metric) {
  return metric_sign(metric) > 0.0 ? "lowest" : "highest";
}

std::string equal_samples_sentence(const StudyOptions& options, int64_t batch) {
  char text[256];
  std::snprintf(text, sizeof(text),
                "at equal samples (%s), batches up to %lld come within %.3g %% of the %s %s.",
                format_rounded(static_cast<double>(options.budget_samples)).c_str(),
                static_cast<long long>(batch), 100.0 * options.tolerance, best_word(options.metric),
                options.metric.c_str());
  return text;
}

std::string capitalised(std::string text) {
  text.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(text.front())));
  return text;
}

// Why there is no fit.
std::string no_fit_sentence(const StudyOptions& options, const StudyAnalysis& analysis) {
  const std::string value = format_rounded(analysis.target);
  const std::string target =
      options.target ? "study.target = " + value : "the target, " + value + ",";
  const double sign = metric_sign(options.metric);
  std::optional<double> best;
  bool is_reached = false;
  for (const auto& setting : analysis.settings) {
    if (setting.ranks != analysis.ranks) continue;
    is_reached = is_reached || !setting.samples.empty();
    for (const auto* run : setting.runs) {
      if (run->state != StudyRun::State::kFinished) continue;
      if (run->starts_at(analysis.target)) {
        return "No critical batch: " + target + " is met before the first step, where " +
               options.metric + " is " + format_rounded(run->evaluations.front().value) +
               (options.target ? ". Set a better one."
                               : ". Some batch learns nothing at the rates tried: try others.");
      }
      for (const auto& evaluation : run->evaluations) {
        const bool is_better = !best || sign * evaluation.value < sign * *best;
        if (std::isfinite(evaluation.value) && is_better) best = evaluation.value;
      }
    }
  }
  if (options.target && best && !is_reached) {
    return "No critical batch: no run reaches " + target + "; the " + best_word(options.metric) +
           " " + options.metric + " is " + format_rounded(*best) +
           ". Set a target that is reached, or raise study.budget_samples.";
  }
  return "No critical batch: it takes two batches of which every seed reaches the target.";
}

// Which batches of the fit may need fewer samples at a rate beyond those tried.
std::string edge_sentence(const StudyAnalysis& analysis) {
  std::string batches;
  for (const auto& batch : analysis.batches) {
    if (batch.variant != analysis.batches.front().variant || !batch.samples) continue;
    if (batch.edge == BatchResult::Edge::kInside) continue;
    batches += (batches.empty() ? "" : ", ") + std::to_string(batch.batch);
  }
  if (batches.empty()) return {};
  return " (Not tuned to the end: the best learning rate is at the edge of those tried at batch " +
         batches + ".)";
}
}  // namespace

std::optional<LrLaw> find_lr_law(const StudyAnalysis& analysis) {
  std::vector<double> x;
  std::vector<double> y;
  std::vector<std::vector<const Setting*>> rates_of;
  size_t num_seeds = 0;
  for (const auto& batch : analysis.batches) {
    if (batch.variant != analysis.batches.front().variant || !batch.samples) continue;
    if (batch.edge != BatchResult::Edge::kInside) continue;
    x.push_back(std::log(static_cast<double>(batch.batch)));
    y.push_back(std::log(batch.best_lr));
    auto& rates = rates_of.emplace_back();
    for (const auto& setting : analysis.settings) {
      const Setting& best = *batch.best;
      if (setting.batch == best.batch && setting.variant == best.variant &&
          setting.ranks == best.ranks && setting.warmup_samples == best.warmup_samples) {
        rates.push_back(&setting);
      }
    }
    std::ranges::sort(rates, {}, [](const Setting* setting) { return setting->lr; });
    num_seeds = std::max(num_seeds, batch.best->samples.size());
  }
  if (x.size() < 3) return std::nullopt;
  LrLaw law{.exponent = fit_line(x, y).slope, .interval = {}, .verdict = {}};
  if (num_seeds >= 2) {
    ResamplingRandom random(2);
    std::vector<double> slopes;
    for (int draw = 0; draw < kNumDraws; ++draw) {
      // The scatter of the optima about the line counts too: batches are resampled with the seeds.
      std::vector<double> drawn_x;
      std::vector<double> drawn_y;
      const auto seeds = resampled(num_seeds, random);
      for (const size_t i : resampled(x.size(), random)) {
        drawn_x.push_back(x[i]);
        drawn_y.push_back(best_log_rate(rates_of[i], seeds));
      }
      if (std::ranges::min(drawn_x) == std::ranges::max(drawn_x)) continue;
      slopes.push_back(fit_line(drawn_x, drawn_y).slope);
    }
    law.interval = Interval{quantile_of(slopes, 0.025), quantile_of(slopes, 0.975)};
  }
  law.verdict = exponent_verdict(law.exponent, law.interval);
  return law;
}

std::optional<CommonNumbers> compare_common_numbers(std::span<const Setting> settings,
                                                    Pairs which) {
  std::vector<Pair> pairs;
  CommonNumbers common;
  size_t num_seeds = 0;
  for (size_t i = 0; i < settings.size(); ++i) {
    for (size_t k = i + 1; k < settings.size(); ++k) {
      if (settings[i].num_diverged + settings[k].num_diverged > 0) continue;
      const bool is_same = settings[i].batch == settings[k].batch;
      if (which != Pairs::kAll && is_same != (which == Pairs::kSameBatch)) continue;
      Pair pair = common_finals(settings[i], settings[k]);
      if (pair.a.size() < kMinCommonSeeds) continue;
      common.correlation += correlation_of(pair);
      num_seeds = std::max(num_seeds, pair.a.size());
      pairs.push_back(std::move(pair));
    }
  }
  if (pairs.empty()) return std::nullopt;
  const auto ratio = mean_ratio(pairs, counted(num_seeds));
  if (!ratio) return std::nullopt;
  common.num_pairs = static_cast<int64_t>(pairs.size());
  common.correlation /= static_cast<double>(pairs.size());
  common.seeds_ratio = *ratio;
  if (num_seeds < kMinResampledSeeds) return common;
  ResamplingRandom random(3);
  std::vector<double> ratios;
  for (int draw = 0; draw < kNumDraws; ++draw) {
    if (const auto drawn = mean_ratio(pairs, resampled(num_seeds, random)))
      ratios.push_back(*drawn);
  }
  if (!ratios.empty()) {
    common.ratio_interval = Interval{quantile_of(ratios, 0.025), quantile_of(ratios, 0.975)};
  }
  return common;
}

std::vector<double> finished_rates(const Setting& setting) {
  std::vector<double> rates;
  for (const auto* run : setting.runs) {
    const bool is_finished = run->state == StudyRun::State::kFinished;
    if (is_finished && run->images_per_second > 0.0) rates.push_back(run->images_per_second);
  }
  return rates;
}

std::vector<RankScaling> scaling_over_ranks(std::span<const Setting> settings) {
  std::vector<std::string> variants;  // In order, which need not be that of their text.
  std::map<std::tuple<size_t, int64_t, int64_t>, std::vector<double>> rates;
  for (const auto& setting : settings) {
    if (variants.empty() || variants.back() != setting.variant) variants.push_back(setting.variant);
    for (const double rate : finished_rates(setting)) {
      rates[{variants.size() - 1, setting.batch, setting.ranks}].push_back(rate);
    }
  }
  std::map<std::pair<size_t, int64_t>, double> a_rank;  // Images a second, of the fewest ranks.
  std::vector<RankScaling> scaling;
  for (const auto& [key, values] : rates) {
    const auto& [variant, batch, num_ranks] = key;
    const auto ranks = static_cast<double>(num_ranks);
    const double rate = quantile_of(values, 0.5);
    const double base = a_rank.try_emplace({variant, batch}, rate / ranks).first->second;
    scaling.push_back({.variant = variants[variant],
                       .batch = batch,
                       .ranks = num_ranks,
                       .images_per_second = rate,
                       .efficiency = rate / ranks / base,
                       .weak_efficiency = {}});
  }
  for (auto& row : scaling) {
    // Batches ascend, so the first of the same share has the fewest ranks.
    const auto& base = *std::ranges::find_if(scaling, [&](const RankScaling& other) {
      return other.variant == row.variant && other.batch * row.ranks == row.batch * other.ranks;
    });
    if (base.ranks == row.ranks) continue;
    row.weak_efficiency = row.images_per_second / static_cast<double>(row.ranks) /
                          (base.images_per_second / static_cast<double>(base.ranks));
  }
  return scaling;
}

std::optional<double> rank_loss_difference(std::span<const StudyRun> records) {
  std::map<std::tuple<std::string, int64_t, double, int64_t, int64_t>, const StudyRun*> first;
  std::optional<double> largest;
  for (const auto& record : records) {
    if (record.steps.empty()) continue;
    const RunSpec& spec = record.spec;
    const auto [found, is_new] = first.try_emplace(
        {spec.variant, spec.batch, spec.lr, spec.seed, spec.warmup_samples}, &record);
    if (is_new) continue;
    const auto& other = found->second->steps;
    for (size_t i = 0; i < std::min(other.size(), record.steps.size()); ++i) {
      const double difference = std::abs(record.steps[i].loss / other[i].loss - 1.0);
      if (std::isfinite(difference)) largest = std::max(largest.value_or(0.0), difference);
    }
  }
  return largest;
}

std::vector<std::string> write_verdict(const StudyOptions& options, const StudyAnalysis& analysis) {
  std::vector<std::string> verdict;
  if (!options.forks.empty()) {
    for (const auto& [variant, batch] : analysis.lossless) {
      verdict.push_back(capitalised(variant) + ": " + equal_samples_sentence(options, batch));
    }
    return verdict;
  }
  if (!analysis.fit) {
    verdict.push_back(no_fit_sentence(options, analysis));
  } else {
    const TradeoffFit& fit = *analysis.fit;
    using Identified = TradeoffFit::Identified;
    const double smallest = analysis.points.batches.front().batch;
    const double largest = analysis.points.batches.back().batch;
    std::string text =
        fit.identified == Identified::kTooHigh
            ? "Up to batch " + format_rounded(largest) +
                  " samples to target do not grow: the critical batch lies above."
        : fit.identified == Identified::kTooLow
            ? "From batch " + format_rounded(smallest) +
                  " on samples to target grow as the batch: the critical batch lies below."
            : "The critical batch is " +
                  with_interval(fit.curve.noise_scale, fit.noise_scale_interval) + " samples.";
    if (fit.held_out) {
      char miss[96];
      std::snprintf(miss, sizeof(miss),
                    " (Fitted without batch %.0f, the curve misses it by %+.0f %%.)",
                    fit.held_out->batch, 100.0 * fit.held_out->miss());
      text += miss;
    }
    verdict.push_back(text + edge_sentence(analysis));
  }
  verdict.push_back(analysis.lr_law
                        ? analysis.lr_law->verdict
                        : "No learning-rate exponent: it takes three batches whose best rate lies "
                          "inside the rates tried.");
  const auto& lossless = analysis.lossless;
  verdict.push_back(lossless.empty()
                        ? "No run has finished."
                        : capitalised(equal_samples_sentence(options, lossless.front().batch)));
  return verdict;
}
}  // namespace trireme
