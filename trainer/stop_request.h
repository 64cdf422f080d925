#pragma once
#include <chrono>
#include <string>

#include "core/stop_signal.h"
#include "dist/mpi_environment.h"

namespace trireme {

// Why a run is to end before its last step: a stop signal to any rank, or run.max_hours by rank 0's
// clock, which counts the next step in, so that no step is begun that would end too late.
class StopRequest {
 public:
  struct Options {
    const StopSignal* signal = nullptr;  // Outlives it; null: no signal stops the run.
    double max_hours = 0.0;              // From `start`; 0: no limit.
    std::chrono::steady_clock::time_point start;
  };
  // `mpi` outlives it.
  StopRequest(MpiEnvironment& mpi, const Options& options) : mpi_(mpi), options_(options) {}

  void note_step_seconds(double seconds) noexcept { step_seconds_ = seconds; }
  [[nodiscard]] bool is_made_here() const;   // On this rank.
  [[nodiscard]] bool is_made();              // On any. Collective.
  [[nodiscard]] std::string reason() const;  // For a message: " (SIGTERM)", "".

 private:
  MpiEnvironment& mpi_;
  Options options_;
  double step_seconds_ = 0.0;  // Of the last step.
};
}  // namespace trireme
