#pragma once
#include <chrono>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/affinity.h"
#include "core/error.h"
#include "core/stop_signal.h"
#include "dist/mpi_environment.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/divergence.h"
#include "trainer/evaluator.h"
#include "trainer/host_copy.h"
#include "trainer/metric_watch.h"
#include "trainer/noise_scale.h"
#include "trainer/optim/lr_schedule.h"
#include "trainer/optim/optimizer.h"
#include "trainer/phase_clock.h"
#include "trainer/precision.h"
#include "trainer/reduce/checksum.h"
#include "trainer/reduce/gradient_buckets.h"
#include "trainer/reduce/gradient_reducer.h"
#include "trainer/reduce/parameter_gather.h"
#include "trainer/run_plan.h"
#include "trainer/run_trace.h"
#include "trainer/session.h"
#include "trainer/step_batches.h"
#include "trainer/step_log.h"
#include "trainer/step_message.h"
#include "trainer/stop_request.h"

namespace trireme {

// One rank of a training run: owns model, optimizer state and reducer, and on rank 0 the run
// directory's files. Everything public is collective.
//
// A step never makes the host wait for the device: launch_step() enqueues it, and its numbers are
// read when they have arrived, on a GPU one step later unless something hangs on them. Losses and
// gradients that are not finite leave parameters and state as they were, decided on the device.
class Trainer {
 public:
  struct Options {
    std::filesystem::path run_dir;                // Empty: nothing is recorded (audit, bench).
    std::string config_toml;                      // The resolved configuration, for checkpoints.
    std::optional<std::filesystem::path> resume;  // A whole checkpoint, or a fresh start.
    std::vector<HyperParameter> hyper_parameters = {};  // For TensorBoard.
    std::string version = {};                           // Of the program, for the record.
    // For fault injection: called after step's gradients were summed, before anything is made of
    // them.
    std::function<void(int64_t step, std::vector<FlatBucket>& buckets)> on_summed_gradients = {};
    // For measurements: takes the place of the communicator that the configuration asks for.
    std::function<std::unique_ptr<Communicator>()> make_communicator = {};
    const StopSignal* stop_signal = nullptr;  // Outlives the trainer; null: no signal stops it.
    CpuList helper_cpus = {};  // Of loader and communication threads; empty: as the caller's.
    // From which run.max_hours counts.
    std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  };
  // Loads the checkpoint's weights and state where there is one. Throws on all ranks together.
  // REQUIRES: the ranks' sessions are equal (agree_on_session()).
  Trainer(MpiEnvironment& mpi, Session session, Options options);
  ~Trainer();

  // Trains to the last step, an early stop or a stop signal; returns kDone or kStopped.
  [[nodiscard]] ExitCode run();

  // One step by itself, without evaluation, checkpoint or record: for audit and measurements.
  [[nodiscard]] StepResult run_step();
  void save_checkpoint();  // Of the step just made, unless there is one.
  [[nodiscard]] int64_t step() const noexcept { return state_.step; }  // Updates so far.
  [[nodiscard]] const RunPlan& plan() const noexcept { return plan_; }

 private:
  // A step whose numbers are on their way to the host.
  struct StepInFlight {
    int64_t step = 0;
    double lr = 0.0;
    double data_seconds = 0.0;
    double comm_exposed_seconds = 0.0;
    std::vector<at::Tensor> losses;  // Of this rank's micro-batches, (N) each.
    HostCopy numbers;
  };
  void measure_and_allocate();
  void load_checkpoint();
  [[nodiscard]] ExitCode train();
  // trainer_step.cc: one update.
  void launch_step();
  void accumulate_piece(int64_t piece, std::vector<at::Tensor>& losses);
  [[nodiscard]] at::Tensor micro_losses(const LatentBatch& batch, const BatchTensors& tensors);
  [[nodiscard]] double global_batch(int64_t step) const;
  void update(const StepInFlight& flight);
  [[nodiscard]] bool bounds_values() const { return config_.optim.max_grad_value > 0; }
  void clip_values();
  [[nodiscard]] at::Tensor clip_factor() const;
  [[nodiscard]] at::Tensor checksum_share(Checksummed what) const;
  void wait_for_parameters();
  void exchange_average();
  [[nodiscard]] StepResult read_step();
  void judge(const StepInFlight& flight, const StepMessage::Content& content,
             const StepResult& result);
  void note_noise(const StepMessage::Content& content, StepResult& result);
  [[nodiscard]] std::string locate_divergence(const StepInFlight& flight,
                                              const StepMessage::Content& content);
  // What comes between updates.
  [[nodiscard]] bool is_something_due() const;
  [[nodiscard]] bool is_evaluation_due() const;
  [[nodiscard]] bool is_checkpoint_due() const;
  void record_step();
  void evaluate();
  void conclude_step();
  [[nodiscard]] ExitCode tell_stop() const;
  [[nodiscard]] ExitCode tell_early_stop() const;
  void keep_last_weights(int64_t diverged_step, const std::string& reason);
  [[nodiscard]] NamedTensors optimizer_state();
  // trainer_report.cc: what a person is told.
  void announce() const;
  void note_start();
  void report_time(double wall_seconds, const std::string& outcome);

  MpiEnvironment& mpi_;
  Session session_;
  Options options_;
  const Config& config_;
  RunTrace trace_;  // Outlives the threads that record.
  RunPlan plan_;
  ScaledOptim scaled_;
  std::unique_ptr<Communicator> comm_;
  std::unique_ptr<StepBatches> batches_;
  std::unique_ptr<GradientBuckets> buckets_;
  std::unique_ptr<GradientReducer> reducer_;
  std::unique_ptr<ParameterGather> gather_;  // With shard_optimizer.
  std::unique_ptr<StepMessage> message_;
  std::unique_ptr<LossScaler> scaler_;
  GradientNoiseScale noise_scale_;
  std::deque<StepInFlight> in_flight_;
  std::vector<FlatRange> slices_;  // This rank's equal part of each bucket.
  std::vector<FlatRange> ranges_;  // What its optimizer updates of each: all, or the slice.
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Ema> ema_;
  std::unique_ptr<Evaluator> evaluator_;
  CheckpointState state_;
  DivergenceGuard guard_;
  MetricWatch watch_;
  StopRequest stop_request_;
  bool stop_agreed_ = false;
  int64_t last_checkpoint_step_ = -1;
  std::chrono::steady_clock::time_point last_end_;  // Of the step before, or what came after it.
  std::unique_ptr<StepLog> log_;                    // Rank 0 only.
  PhaseClock clock_;
  int64_t first_step_ = 0;  // Completed before this start.
};
}  // namespace trireme
