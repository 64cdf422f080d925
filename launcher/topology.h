#pragma once
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace trireme {

struct Gpu {
  std::string pci_address;  // "0000:3b:00.0"; empty where it is not known.
  int numa_node = -1;       // -1: not known.
};

// What a host has for ranks. Plain values, so that plans can be made for machines that are not
// here.
struct Machine {
  int num_cores = 1;             // Physical cores that this process may use.
  int num_processing_units = 1;  // With hyper-threads.
  int num_numa_nodes = 1;
  std::vector<Gpu> gpus;  // Those that CUDA_VISIBLE_DEVICES leaves visible.
};

// Looks at this host: cores by hwloc, the affinity mask and the container's CPU quota; GPUs by the
// driver's files under `root` ("/"; a test gives another), without the driver's library. Local.
[[nodiscard]] Machine detect_machine(const std::filesystem::path& root = "/");

// The GPUs whose files are under `root`, of which `visible` (CUDA_VISIBLE_DEVICES; null: unset)
// leaves some: indices in any order, up to the first that does not exist, as CUDA reads it.
[[nodiscard]] std::vector<Gpu> detect_gpus(const std::filesystem::path& root, const char* visible);

// Confines this process, before it starts threads, to the cores near its GPU: its share among the
// ranks whose GPUs are near the same cores. `local_rank` is also the GPU's index. Does nothing
// where the GPU's place is not known or the process is confined to less already. Local.
void bind_near_gpu(const Machine& machine, int local_rank, int local_size);

struct HostSlots {
  std::string host;
  int num_ranks = 0;  // 0: one per GPU, as on this host.
};
// Reads "a:4,b:4"; UsageError where it is not that.
[[nodiscard]] std::vector<HostSlots> parse_hosts(const std::string& text);

enum class Starter { kMpirun, kSrun };
enum class User { kOrdinary, kRoot };
enum class Build { kCpu, kCuda };

struct LaunchRequest {
  int num_ranks = 0;  // 0: choose.
  std::vector<HostSlots> hosts;
  Starter starter = Starter::kMpirun;  // srun within a Slurm allocation.
  int num_nodes = 1;                   // Of the allocation.
  User user = User::kOrdinary;
  Build build = Build::kCpu;
  std::string program;                 // Path of the trireme binary.
  std::vector<std::string> arguments;  // "train", CONFIG, …
};

struct LaunchPlan {
  int num_ranks = 1;
  int threads_per_rank = 1;
  std::vector<std::string> command;                              // argv of mpirun or srun
  std::vector<std::pair<std::string, std::string>> environment;  // In addition; inherited by ranks.
  std::string explanation;  // One line for the user: why so many ranks and threads.
};

// How many ranks, with how many threads, by which command. A pure function of its arguments.
// UsageError where the request does not fit the machine.
[[nodiscard]] LaunchPlan plan_launch(const Machine& machine, const LaunchRequest& request);

// A word as a POSIX shell must be given it.
[[nodiscard]] std::string shell_quoted(const std::string& word);
[[nodiscard]] std::string shell_line(const LaunchPlan& plan);
}  // namespace trireme
