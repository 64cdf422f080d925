#pragma once
#include <string>
#include <vector>

namespace trireme {

// What `launch --slurm` was asked for; empty or 0: not said, and not written.
struct SlurmRequest {
  std::string job_name;
  int num_nodes = 1;
  int gpus_per_node = 0;
  int num_ranks = 0;  // 0: one per GPU.
  int cpus_per_task = 0;
  std::string time;  // As sbatch takes it: minutes, HH:MM:SS, D-HH:MM:SS.
  std::string partition;
  std::string account;
  std::string working_directory;
  std::string program;
  std::vector<std::string> arguments;
};

// A batch script for sbatch. A minute before the time limit Slurm sends SIGUSR1, the ranks write a
// checkpoint and exit 75, and the job requeues itself. UsageError where the request is
// contradictory.
[[nodiscard]] std::string slurm_script(const SlurmRequest& request);
}  // namespace trireme
