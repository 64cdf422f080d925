#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>

#include "core/tracer.h"
#include "dist/mpi_environment.h"
#include "trainer/config.h"
#include "trainer/device_trace.h"

namespace trireme {

// The trace of the steps that [trace] asks for: spans of every rank's threads and GPU streams, in
// one file of the run directory (docs/trace.md). Collective; outlives the threads that record.
class RunTrace {
 public:
  // `mpi` outlives it. The file goes to the folder `run_dir`/trace.
  RunTrace(MpiEnvironment& mpi, const TraceOptions& options, const std::string& device,
           std::filesystem::path run_dir);

  [[nodiscard]] TraceTrack track(const std::string& name) {
    return {&tracer_, tracer_.track(name)};
  }
  // Switches on before the first step to trace, and writes after the last one.
  void before_step(int64_t step);
  // What was traced up to `last_step`, if anything is.
  void write(int64_t last_step);

 private:
  Tracer tracer_;
  MpiEnvironment& mpi_;
  TraceOptions options_;
  DeviceTrace device_trace_;
  std::filesystem::path run_dir_;
  int64_t first_step_ = 0;                        // Traced; 0: none yet.
  std::chrono::steady_clock::time_point origin_;  // The ranks' common time 0.
};
}  // namespace trireme
