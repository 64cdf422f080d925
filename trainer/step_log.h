#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/batch_schedule.h"
#include "trainer/evaluate/eval_metrics.h"
#include "trainer/run_directory.h"
#include "trainer/tensorboard_file.h"

namespace trireme {

// What a step says of the noise of gradients: unbiased estimates of |G|^2 and tr(Sigma), and the
// noise scale from all steps so far (trainer/noise_scale.h).
struct StepNoise {
  double signal = 0.0;
  double noise = 0.0;
  std::optional<double> scale = {};
};

// Of the summed gradient, and of the parameters after the update (trainer/reduce/checksum.h).
struct StepChecksums {
  uint64_t gradients = 0;
  uint64_t parameters = 0;
};

// What one update reports (docs/run_directory.md, metrics.jsonl).
struct StepResult {
  int64_t step = 0;
  double loss = 0.0;
  std::optional<double> prior_loss = {};  // Of the prior set, unweighted; it is part of the loss.
  double grad_norm = 0.0;                 // Before clipping.
  double lr = 0.0;
  double step_seconds = 0.0;
  double data_seconds = 0.0;
  double comm_exposed_seconds = 0.0;
  std::optional<StepNoise> noise = {};          // Nothing where the batch has no parts.
  std::optional<StepChecksums> checksums = {};  // With shards.
  std::optional<double> loss_scale = {};        // With fp16.
  // With max_grad_value: after it, before max_grad_norm.
  std::optional<double> bounded_grad_norm = {};
};

// Writes a run's steps, evaluations and events to metrics.jsonl and TensorBoard, and shows
// progress: on a terminal one line that is rewritten, elsewhere a line of fixed columns for the
// first step, the last, and in between at most one in ten seconds (log.txt gets these too). Rank 0
// only.
class StepLog {
 public:
  struct Options {
    std::filesystem::path run_dir;
    uint64_t keep_bytes = 0;  // Of metrics.jsonl; the rest is of steps that will come again.
    int64_t first_step = 0;   // Steps completed before this start.
    bool is_resumed = false;  // Then what TensorBoard has up to first_step stays.
    int64_t num_steps = 0;
    BatchSchedule global_batch = 1;
    int64_t num_training = 0;  // Samples of an epoch.
    std::vector<HyperParameter> hyper_parameters = {};
  };
  explicit StepLog(const Options& options);
  ~StepLog();  // Takes the progress line away.
  StepLog(const StepLog&) = delete;
  StepLog& operator=(const StepLog&) = delete;

  void step(const StepResult& result);
  void evaluation(int64_t step, const EvalMetrics& metrics);
  // `details`: further members of the line.
  void event(int64_t step, const std::string& what, const JsonLine& details = {});
  // A picture that was drawn, for TensorBoard. A file that is not there is passed over.
  void picture(int64_t step, const std::string& name, const std::filesystem::path& png);
  // What goes on between steps, shown as the progress line: "validation", "checkpoint".
  void activity(const std::string& what);
  [[nodiscard]] uint64_t size_bytes() const noexcept { return metrics_.size_bytes(); }
  void sync();

 private:
  using Clock = std::chrono::steady_clock;
  void append(const JsonLine& line);
  void smooth(const StepResult& result);
  void show_line(const StepResult& result, double epoch, double rate);
  void show_progress(const StepResult& result);

  Options options_;
  MetricsFile metrics_;
  TensorboardFile tensorboard_;
  Clock::time_point last_line_;
  Clock::time_point last_progress_;
  bool has_header_ = false;
  int64_t num_seen_ = 0;
  StepResult smoothed_;  // Running means of loss and seconds.
};
}  // namespace trireme
