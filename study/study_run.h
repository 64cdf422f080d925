#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "study/study_grid.h"

namespace trireme {

// What a run of a study left in its metrics.jsonl.
struct StudyRun {
  RunSpec spec;
  double sign = 1.0;  // metric_sign() of the study's metric.
  enum class State { kAbsent, kUnfinished, kFinished, kDiverged } state = State::kAbsent;

  struct Evaluation {
    double samples = 0.0;  // Since the run's start.
    double value = 0.0;    // Of the study's metric; not finite where null.
  };
  std::vector<Evaluation> evaluations;  // Those that have the metric.
  std::vector<std::string> evaluated;   // Names of what the newest evaluation holds.
  struct Step {
    double samples = 0.0;
    double loss = 0.0;
    double noise_scale = 0.0;  // 0: not there.
  };
  std::vector<Step> steps;
  double images_per_second = 0.0;     // Median; 0: unknown.
  double comm_exposed_seconds = 0.0;  // Medians of a step.
  double data_seconds = 0.0;
  double step_seconds = 0.0;

  [[nodiscard]] std::optional<double> final_value() const;  // Absent: no finite evaluation.
  // That of a finished run only.
  [[nodiscard]] std::optional<double> finished_value() const;
  // Samples at which the metric first is `target` or better, between evaluations by a straight
  // line; absent where it never is, or from the start.
  [[nodiscard]] std::optional<double> samples_to(double target) const;
  [[nodiscard]] bool starts_at(double target) const;  // It is before the first step.
};

// Keeps the state beside metrics.jsonl, in `study.json`; absent while a run goes on.
void write_state(const std::filesystem::path& run_dir, StudyRun::State state);

// Reads DIR/metrics.jsonl and DIR/study.json. A last line cut short is passed over, and so is a
// state that cannot be read: the run is unfinished. Throws InputError for another malformed line.
[[nodiscard]] StudyRun read_study_run(const std::filesystem::path& run_dir, const RunSpec& spec,
                                      const std::string& metric);

// True where the metric is no number, or one of which less is better and more than twice its first
// value: the run is not worth its remaining budget.
[[nodiscard]] bool looks_diverged(const StudyRun& record);

[[nodiscard]] std::string_view state_name(StudyRun::State state);
}  // namespace trireme
