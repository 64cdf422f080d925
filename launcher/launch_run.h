#pragma once
#include <filesystem>

#include "core/error.h"
#include "launcher/launch_plan.h"

namespace trireme {

struct LaunchRunOptions {
  int num_restarts = 0;
  int kill_timeout_seconds = 0;       // From a stop signal to the end of ranks that go on; 0: none.
  std::filesystem::path rank_output;  // Folder of a log a rank; empty: none.
  std::filesystem::path run_dir;
};

// Runs the plan, and again where ranks stopped after a checkpoint (75) or one was lost (4) without
// this process having been asked to stop, at most `num_restarts` times. Prints what ranks print
// and, at the end, the first error of any. Returns what `launch` returns.
[[nodiscard]] ExitCode run_plan(LaunchPlan plan, const LaunchRunOptions& options);
}  // namespace trireme
