#pragma once
#include <chrono>
#include <string>
#include <string_view>

#include <signal.h>

#include "core/error.h"
#include "launcher/launch_plan.h"
#include "launcher/rank_output.h"

namespace trireme {

// While it lives, the signals that run_child() acts on wait for it instead of ending this process,
// and a reader of its output that goes away does not end it.
class SignalsHeld {
 public:
  SignalsHeld();
  ~SignalsHeld();
  SignalsHeld(const SignalsHeld&) = delete;
  SignalsHeld& operator=(const SignalsHeld&) = delete;

 private:
  sigset_t before_{};
  struct sigaction pipe_before_ {};
};

// How the starter (mpirun or srun) of the ranks ended.
struct ChildOutcome {
  int exit_code = 0;             // Where it exited.
  int signal = 0;                // Where a signal ended it; else 0.
  bool was_stopped = false;      // It had been asked to stop.
  bool was_interrupted = false;  // A second Ctrl-C came.
  bool was_killed = false;       // It outlived the kill timeout.
};

// Runs the plan's command in a process group of its own, without standard input, until it ends, and
// gives what it prints to `output`. The first SIGINT, SIGTERM, SIGHUP or SIGUSR1 reaches the ranks
// as SIGUSR1, which mpirun and srun forward: they write a checkpoint and end. So does a SIGTERM
// sent to the starter itself, which would kill the ranks within a second: it is blocked there, and
// seen from here. Further ones change nothing, but a second SIGINT interrupts the starter and kills
// it two seconds later, which ends the ranks; so does the end of `kill_timeout` after the first (0:
// none). When this process dies the ranks are stopped as by a signal. Throws UsageError where the
// command cannot be started. Call it before any thread is started.
[[nodiscard]] ChildOutcome run_child(const LaunchPlan& plan, RankOutput& output,
                                     std::chrono::seconds kill_timeout = std::chrono::seconds(0));

// What `launch` returns for it, and what to tell the user, if anything.
struct LaunchResult {
  ExitCode code = ExitCode::kDone;
  std::string message;
};
[[nodiscard]] LaunchResult interpret(const ChildOutcome& outcome, std::string_view starter);
}  // namespace trireme
