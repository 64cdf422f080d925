#pragma once
#include <string>
#include <vector>

namespace trireme {

// What a batch script is to do; empty or 0: not said, and not written.
struct SlurmRequest {
  // Where the script takes the run from.
  enum class Source {
    kFilledIn,         // `arguments` and `run_dir` below.
    kScriptArguments,  // sbatch SCRIPT CONFIG RUN_DIR
    kCommandFile,      // sbatch --array=1-N SCRIPT FILE: task i runs line i of the file.
    kCommands          // Task i runs `commands`[i - 1], in the folder `run_dir`/LAST WORD.
  };
  Source source = Source::kFilledIn;
  std::string job_name;
  int num_nodes = 1;
  int gpus_per_node = 0;
  int num_ranks = 0;  // 0: one per GPU.
  int cpus_per_task = 0;
  int grace_seconds = 120;  // From the signal to the time limit.
  std::string time;         // As sbatch takes it: minutes, HH:MM:SS, D-HH:MM:SS.
  std::string partition;
  std::string account;
  std::string qos;
  std::string container;  // "*.sif": by Apptainer; else by pyxis.
  std::string mounts;     // "SRC:DST,…"
  std::string working_directory;
  std::string run_dir;
  std::string program;
  std::vector<std::string> arguments;              // Of the program.
  std::vector<std::vector<std::string>> commands;  // The same of each task of an array.
  enum class Starter { kSrun, kProgram };          // kProgram: `launch` or `study`, in the job.
  Starter starter = Starter::kSrun;
};

// A batch script for sbatch. Some time before the limit, and at preemption, Slurm signals the
// script or the ranks; the ranks write a checkpoint and exit 75, and the job requeues itself, once,
// unless it was cancelled or stops again and again without a new checkpoint. UsageError where the
// request is contradictory.
[[nodiscard]] std::string slurm_script(const SlurmRequest& request);
}  // namespace trireme
