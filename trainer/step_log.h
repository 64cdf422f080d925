#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>

#include "trainer/evaluate/validation.h"
#include "trainer/run_directory.h"

namespace trireme {

// What one update reports (docs/run_directory.md, metrics.jsonl).
struct StepResult {
  int64_t step = 0;
  double loss = 0.0;
  double grad_norm = 0.0;  // Before clipping.
  double lr = 0.0;
  double step_seconds = 0.0;
  double data_seconds = 0.0;
  double comm_exposed_seconds = 0.0;
};

// Writes a run's steps, evaluations and events to metrics.jsonl, and a line of fixed columns to the
// log: the first step, the last, and in between at most one in two seconds. Rank 0 only.
class StepLog {
 public:
  struct Options {
    std::filesystem::path run_dir;
    uint64_t keep_bytes = 0;  // Of metrics.jsonl; the rest is of steps that will come again.
    int64_t num_steps = 0;
    int64_t global_batch = 0;
    int64_t num_training = 0;  // Samples of an epoch.
  };
  explicit StepLog(const Options& options);

  void step(const StepResult& result);
  // `ema` is null without EMA.
  void evaluation(int64_t step, const ValidationResult& result, const ValidationResult* ema);
  void event(int64_t step, const std::string& what);
  [[nodiscard]] uint64_t size_bytes() const noexcept { return metrics_.size_bytes(); }
  void sync() { metrics_.sync(); }

 private:
  Options options_;
  MetricsFile metrics_;
  std::chrono::steady_clock::time_point last_line_;
  bool has_header_ = false;
  double smoothed_step_seconds_ = 0.0;
};
}  // namespace trireme
