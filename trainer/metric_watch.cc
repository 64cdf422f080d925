#include "trainer/metric_watch.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.h"

namespace trireme {
namespace {
std::string names_of(const EvalMetrics& metrics) {
  std::string names;
  for (const auto& [name, value] : metrics) names += (names.empty() ? "" : ", ") + name;
  return names.empty() ? "nothing" : names;
}
}  // namespace

double metric_sign(std::string_view metric) { return metric == "clip_score" ? -1.0 : 1.0; }

double MetricWatch::sign() const {
  const auto& early = config_.early_stopping;
  if (early.mode == MetricMode::kAuto) return metric_sign(early.metric);
  return early.mode == MetricMode::kMax ? -1.0 : 1.0;
}

void MetricWatch::note(const EvalMetrics& metrics) {
  const auto& early = config_.early_stopping;
  metric_ = find_metric(metrics, early.metric);
  if (!metric_) {
    const bool is_score = std::ranges::count(config_.scores.metrics, early.metric) > 0;
    if (early.patience == 0 || is_score) return;
    throw UsageError("early_stopping.metric = \"" + early.metric +
                     "\" is not among what this run evaluates, which is " + names_of(metrics) +
                     ". Choose one of these, or set early_stopping.patience = 0.");
  }
  const bool improved =
      state_.evaluations == 0 || sign() * *metric_ < sign() * state_.best_metric - early.min_delta;
  ++state_.evaluations;
  state_.evaluations_without_improvement =
      improved ? 0 : state_.evaluations_without_improvement + 1;
  if (improved) state_.best_metric = *metric_;
}

bool MetricWatch::stops_early() const {
  const int64_t patience = config_.early_stopping.patience;
  return patience > 0 && state_.evaluations_without_improvement >= patience;
}

bool MetricWatch::is_best_to_save(Saves saves) {
  const auto best = config_.checkpoint.best;
  if (best == BestCheckpoint::kOff || !metric_ || !std::isfinite(*metric_)) return false;
  const bool is_best =
      state_.best_step == 0 || sign() * *metric_ < sign() * state_.best_step_metric;
  const bool is_worth_it = saves == Saves::kAnyway || best == BestCheckpoint::kSaved ||
                           (best == BestCheckpoint::kAuto && config_.early_stopping.patience > 0);
  if (!is_best || !is_worth_it) return false;
  state_.best_step = state_.step;
  state_.best_step_metric = *metric_;
  return true;
}
}  // namespace trireme
