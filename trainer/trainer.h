#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/stop_signal.h"
#include "core/tracer.h"
#include "data/loader.h"
#include "data/sampler.h"
#include "dist/mpi_environment.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/diffusion/noise_schedule.h"
#include "trainer/optim/lr_schedule.h"
#include "trainer/optim/optimizer.h"
#include "trainer/phase_clock.h"
#include "trainer/reduce/gradient_buckets.h"
#include "trainer/reduce/gradient_reducer.h"
#include "trainer/run_plan.h"
#include "trainer/session.h"
#include "trainer/step_log.h"

namespace trireme {

// One rank of a training run: owns model, optimizer state and reducer, and on rank 0 the run
// directory's files. Everything public is collective.
class Trainer {
 public:
  struct Options {
    std::filesystem::path run_dir;
    std::string config_toml;                       // The resolved configuration, for checkpoints.
    std::optional<std::filesystem::path> resume;   // A whole checkpoint, or a fresh start.
    std::vector<HyperParameter> hyper_parameters;  // For TensorBoard.
    std::string version;                           // Of the program, for the record.
  };
  // Loads the checkpoint's weights and state where there is one. Throws on all ranks together.
  Trainer(MpiEnvironment& mpi, Session session, Options options);
  ~Trainer();

  // Trains to the last step, an early stop or a stop signal; returns kDone or kStopped.
  [[nodiscard]] ExitCode run();

 private:
  [[nodiscard]] NamedParameters trainable_parameters() const;
  void measure_and_allocate();
  void load_checkpoint();
  [[nodiscard]] StepResult run_step();
  [[nodiscard]] at::Tensor micro_losses(LatentBatch& batch);
  void fetch_batches();
  void agree_on_losses(std::vector<double>& piece_losses);
  void gather_parameters();
  void evaluate();
  void sample();
  [[nodiscard]] bool is_evaluation_due() const;
  void note_for_early_stopping(double metric);
  void save_checkpoint();
  [[nodiscard]] NamedTensors optimizer_state();
  [[nodiscard]] ExitCode train();
  // trainer_report.cc: what a person is told.
  void announce() const;
  void note_start();
  void follow_trace();
  void write_trace();
  void report_time(double wall_seconds, const std::string& outcome);

  Tracer tracer_;  // Outlives the threads that record.
  MpiEnvironment& mpi_;
  Session session_;
  Options options_;
  const Config& config_;
  RunPlan plan_;
  ScaledOptim scaled_;
  std::unique_ptr<Communicator> comm_;
  std::unique_ptr<GlobalBatchSampler> sampler_;
  std::unique_ptr<GradientBuckets> buckets_;
  std::unique_ptr<GradientReducer> reducer_;
  std::vector<FlatRange> ranges_;  // What this rank's optimizer updates of each bucket.
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Ema> ema_;
  std::unique_ptr<BatchLoader> loader_;
  std::vector<LatentBatch> batches_;  // Of the step under way.
  CheckpointState state_;
  int64_t last_checkpoint_step_ = -1;
  StopSignal stop_signal_;
  bool stop_agreed_ = false;
  std::unique_ptr<StepLog> log_;  // Rank 0 only.
  PhaseClock clock_;
  std::chrono::steady_clock::time_point trace_origin_;
  int64_t first_step_ = 0;  // Completed before this start.
};
}  // namespace trireme
