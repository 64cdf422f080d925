#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace trireme {

// Lines of one kind of metrics.jsonl as columns: every member that was ever a number, NaN where a
// line lacks it or has null.
struct MetricTable {
  std::vector<double> steps;
  std::map<std::string, std::vector<double>> columns;  // Each as long as steps.

  [[nodiscard]] bool has(const std::string& name) const { return columns.contains(name); }
  // Empty where there is no such column.
  [[nodiscard]] const std::vector<double>& column(const std::string& name) const;
};

struct RunEvent {
  int64_t step = 0;
  std::string what;
  std::vector<std::pair<std::string, std::string>> details;  // As JSON text, strings bare.
};

// One phase of the time table, seconds over ranks.
struct PhaseTimes {
  std::string name;
  double min = 0.0;
  double mean = 0.0;
  double max = 0.0;
};

// What a run left behind, for drawing (docs/run_directory.md).
struct RunRecord {
  std::filesystem::path folder;
  MetricTable train;
  MetricTable eval;
  std::vector<RunEvent> events;  // Without those of the time table.
  // Of the last start that ended by itself; empty where none did.
  std::vector<PhaseTimes> phases;
  std::vector<std::string> notes;
  double wall_seconds = 0.0;
  std::string outcome;  // "done", "stopped", "diverged"; empty while it runs or after a kill.
  int64_t num_unreadable = 0;                                       // Lines.
  std::vector<std::pair<int64_t, std::filesystem::path>> pictures;  // samples/step-*.png, by step.

  [[nodiscard]] int64_t last_step() const;
  // Seconds of training up to each train line: the sum of step_seconds.
  [[nodiscard]] std::vector<double> elapsed() const;
};

// Reads metrics.jsonl and lists samples/. Lines that are not JSON objects are counted and passed
// over: a run under way may be writing one. Throws InputError where there is no metrics.jsonl.
[[nodiscard]] RunRecord read_run(const std::filesystem::path& folder);
}  // namespace trireme
