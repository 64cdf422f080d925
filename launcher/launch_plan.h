#pragma once
#include <string>
#include <utility>
#include <vector>

#include "launcher/hosts.h"
#include "launcher/topology.h"

namespace trireme {

enum class Starter { kMpirun, kSrun };
enum class User { kOrdinary, kRoot };
enum class Build { kCpu, kCuda };
enum class LineLabels { kNone, kRank };  // Whether the starter says whose line it is.

struct LaunchRequest {
  int num_ranks = 0;  // 0: choose.
  std::vector<HostSlots> hosts;
  Starter starter = Starter::kMpirun;
  int num_nodes = 1;      // Of the allocation.
  int cpus_per_task = 0;  // Of the allocation; 0: not said.
  int cpus_on_node = 0;   // Of the allocation, which may be less than the machine has; 0: not said.
  User user = User::kOrdinary;
  Build build = Build::kCpu;
  LineLabels labels = LineLabels::kNone;
  std::vector<std::string> environment;  // "NAME=value": all that ranks get.
  std::vector<std::string> exported;     // Names of it that ranks on other hosts need too.
  std::string program;                   // Path of the trireme binary.
  std::vector<std::string> arguments;    // "train", CONFIG, …
};

struct LaunchPlan {
  int num_ranks = 1;
  int threads_per_rank = 1;
  Starter starter = Starter::kMpirun;
  std::vector<std::string> command;                           // argv of mpirun or srun
  std::vector<std::string> environment;                       // All of it, "NAME=value".
  std::vector<std::pair<std::string, std::string>> settings;  // In addition; ranks inherit them.
  std::string explanation;  // One line for the user: why so many ranks and threads.
};

// How many ranks, with how many threads, by which command. A pure function of its arguments.
// UsageError where the request does not fit the machine.
[[nodiscard]] LaunchPlan plan_launch(const Machine& machine, const LaunchRequest& request);

// A word as a POSIX shell must be given it.
[[nodiscard]] std::string shell_quoted(const std::string& word);
[[nodiscard]] std::string shell_line(const LaunchPlan& plan);
}  // namespace trireme
