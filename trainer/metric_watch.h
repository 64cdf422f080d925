#pragma once
#include <optional>
#include <string_view>

#include "trainer/checkpoint/checkpoint.h"
#include "trainer/config.h"
#include "trainer/evaluate/eval_metrics.h"

namespace trireme {

// What turns a metric into a number of which less is better: 1, or -1 for clip_score.
[[nodiscard]] double metric_sign(std::string_view metric);

// What early_stopping.metric decides: whether the run stops early, and whether a step's checkpoint
// is the best so far. Its memory is in the checkpoint, so a resumed run decides as an uninterrupted
// one.
class MetricWatch {
 public:
  // Both outlive the watch, which keeps its memory in `state`.
  MetricWatch(const Config& config, CheckpointState& state) : config_(config), state_(state) {}

  // Once a step, before its evaluation if it has one.
  void begin_step() { metric_.reset(); }
  // Throws UsageError where the metric is not among `metrics`; scores need not be due each time.
  void note(const EvalMetrics& metrics);
  [[nodiscard]] bool stops_early() const;

  enum class Saves { kAnyway, kIfBest };
  // Whether the checkpoint of this step is, or would be, the best so far and worth saving; notes
  // it.
  [[nodiscard]] bool is_best_to_save(Saves saves);

 private:
  [[nodiscard]] double sign() const;

  const Config& config_;
  CheckpointState& state_;
  std::optional<double> metric_;  // Of the evaluation after this step.
};
}  // namespace trireme
