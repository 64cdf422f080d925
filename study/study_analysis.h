#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "study/statistics.h"
#include "study/study_run.h"
#include "study/tradeoff_fit.h"

namespace trireme {

// All seeds of one setting.
struct Setting {
  int64_t batch = 0;
  double lr_factor = 1.0;
  double lr = 0.0;
  int64_t ranks = 1;
  int64_t warmup_samples = 0;
  std::string variant;
  std::vector<const StudyRun*> runs;  // By seed.
  std::vector<double> samples;        // To target, of the runs that reached it.
  std::vector<double> finals;         // The metric at the end of the budget, where finite.
  int64_t num_diverged = 0;
  [[nodiscard]] bool reached_by_all() const {
    return !runs.empty() && samples.size() == runs.size();
  }
};

// A batch at its best learning rate and warm-up; of one variant, on StudyAnalysis::ranks.
struct BatchResult {
  int64_t batch = 0;
  std::string variant;
  const Setting* best = nullptr;             // Fewest samples to target, else lowest final metric.
  std::optional<MeanInterval> samples = {};  // Of `best`; absent where a seed missed the target.
  std::optional<MeanInterval> final_value = {};
  // Of final values over those of the variant's smallest batch with the same seed, less 1.
  std::optional<MeanInterval> over_smallest = {};
  // Optimum of a parabola in log learning rate through the best factor and its neighbours; the best
  // itself where that is at an edge.
  double best_lr = 0.0;
  enum class Edge { kInside, kLow, kHigh } edge = Edge::kInside;  // Whether the best is at one.
  double images_per_second = 0.0;  // Median of the finished best runs; 0: unknown.
  double noise_scale = 0.0;        // Median over the second half of the best runs; 0: not measured.

  // To target, from `samples`; seconds at that median.
  [[nodiscard]] std::optional<MeanInterval> steps() const;
  [[nodiscard]] std::optional<MeanInterval> seconds() const;
};

// best_lr ~ batch^exponent.
struct LrLaw {
  double exponent = 0.0;
  std::optional<Interval> interval;  // 95 %, seeds resampled.
  std::string verdict;               // One sentence.
};

// What the same seeds buy when two settings are compared.
struct CommonNumbers {
  int64_t num_pairs = 0;     // Pairs of settings with three common seeds or more.
  double correlation = 0.0;  // Mean over pairs, of the final metric over seeds.
  double seeds_ratio = 1.0;  // Seeds needed with common numbers over those with independent
                             // ones, for an interval of equal width: Var(A - B) / (Var A + Var B).
  std::optional<Interval> ratio_interval;  // 95 %, seeds resampled.
};

// The largest batch whose final metric, at equal samples, is within the tolerance of the best.
struct LargestLossless {
  std::string variant;
  int64_t batch = 0;
};

// Throughput of the finished runs of a variant.
struct RankScaling {
  std::string variant;
  int64_t batch = 0;
  int64_t ranks = 1;
  double images_per_second = 0.0;
  double efficiency = 0.0;  // Of the fewest ranks at this batch (strong), per rank.
  // Of the fewest ranks with as large a share of their batch, per rank; absent where these are it.
  std::optional<double> weak_efficiency;
};

struct StudyAnalysis {
  double target = 0.0;
  enum class TargetFrom { kFile, kWorstBatch, kNone } target_from = TargetFrom::kNone;
  int64_t ranks = 1;  // The fewest there are: on these, batches are compared.
  std::vector<Setting> settings;
  std::vector<BatchResult> batches;  // By variant (forks by their place), then batch.
  std::optional<TradeoffFit> fit;    // Of the first variant; absent for fewer than two batches.
  Points points;                     // What it was fitted to.
  std::optional<LrLaw> lr_law;
  std::optional<CommonNumbers> common;          // Over all pairs of settings,
  std::optional<CommonNumbers> common_rates;    // those of one batch,
  std::optional<CommonNumbers> common_batches;  // and those of different batches.
  std::vector<LargestLossless> lossless;        // By variant, of those with finished runs.
  std::vector<RankScaling> scaling;             // By variant, batch, ranks.
  // Largest relative difference of a step's loss between runs that differ in ranks only; absent
  // where there are none.
  std::optional<double> rank_loss_difference;
  std::vector<std::string> verdict;  // Three sentences.
};

// `records` outlives the result, which points into it.
[[nodiscard]] StudyAnalysis analyse_study(const StudyOptions& options,
                                          std::span<const StudyRun> records);

// The learning-rate factors to try next: for each batch and variant whose best is at an edge.
struct NextFactor {
  int64_t batch = 0;
  std::string variant;
  double lr_factor = 1.0;
};
[[nodiscard]] std::vector<NextFactor> next_factors(const StudyAnalysis& analysis);
}  // namespace trireme
