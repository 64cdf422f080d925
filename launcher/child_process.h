#pragma once
#include <string>
#include <string_view>

#include "core/error.h"
#include "launcher/topology.h"

namespace trireme {

// How the starter (mpirun or srun) of the ranks ended.
struct ChildOutcome {
  int exit_code = 0;             // Where it exited.
  int signal = 0;                // Where a signal ended it; else 0.
  bool was_stopped = false;      // It had been asked to stop.
  bool was_interrupted = false;  // A second Ctrl-C came.
};

// Runs the plan's command in a process group of its own, without standard input, until it ends. The
// first SIGINT, SIGTERM or SIGHUP reaches the ranks as SIGUSR1, which mpirun and srun forward: they
// write a checkpoint and end. A second SIGINT interrupts the starter, a third kills it. The starter
// dies with this process. Throws UsageError where the command cannot be started. Call it before any
// thread is started.
[[nodiscard]] ChildOutcome run_child(const LaunchPlan& plan);

// What `launch` returns for it, and what to tell the user, if anything.
struct LaunchResult {
  ExitCode code = ExitCode::kDone;
  std::string message;
};
[[nodiscard]] LaunchResult interpret(const ChildOutcome& outcome, std::string_view starter);
}  // namespace trireme
