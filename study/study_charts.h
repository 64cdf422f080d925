#pragma once
#include <span>
#include <string>

#include "report/chart.h"
#include "study/study_analysis.h"
#include "study/study_report.h"

namespace trireme {

// The drawings of a study's report, of its first variant. Arguments outlive it.
class StudyCharts {
 public:
  StudyCharts(const StudyOptions& options, const StudyAnalysis& analysis,
              std::span<const PredictedScaling> predicted)
      : options_(options), analysis_(analysis), predicted_(predicted) {}

  enum class Quantity { kSamples, kSteps };
  // Samples or steps to target against the batch, with whiskers and the fit.
  [[nodiscard]] Chart tradeoff(Quantity quantity) const;
  [[nodiscard]] Chart best_rate() const;      // With the rules through the study's base.
  [[nodiscard]] Chart score_by_rate() const;  // The metric against the rate, a line a batch.
  // The final metric against the batch, a line a fork (all variants).
  [[nodiscard]] Chart branches() const;
  // Curves of the first seed at each batch's best learning rate.
  [[nodiscard]] Chart evaluations() const;
  [[nodiscard]] Chart training_loss(Quantity x) const;
  [[nodiscard]] Chart noise_scale() const;
  [[nodiscard]] BarChart breakdown() const;
  // Over ranks, with ideal lines; throughput also with plan's prediction.
  [[nodiscard]] Chart throughput() const;
  [[nodiscard]] Chart efficiency() const;

 private:
  [[nodiscard]] bool is_first_variant(const std::string& variant) const {
    return variant == analysis_.batches.front().variant;
  }
  [[nodiscard]] Chart curves(const std::string& title, double (*value)(const StudyRun::Step&),
                             Quantity x) const;

  const StudyOptions& options_;
  const StudyAnalysis& analysis_;
  std::span<const PredictedScaling> predicted_;
};
}  // namespace trireme
