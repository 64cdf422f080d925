#include "launcher/slurm_script.h"

#include <algorithm>
#include <cctype>

#include "core/error.h"
#include "launcher/launch_plan.h"

namespace trireme {
namespace {
// An #SBATCH line is split by Slurm, not by a shell.
void check_word(const std::string& option, const std::string& value) {
  const bool is_plain =
      std::ranges::all_of(value, [](unsigned char c) { return c > ' ' && c != '"' && c != '\''; });
  if (!is_plain)
    throw UsageError(option + ": '" + value +
                     "' holds blanks or quotes, which #SBATCH lines cannot.");
}

void check_time(const std::string& time) {
  const bool is_good = !time.empty() && std::ranges::all_of(time, [](unsigned char c) {
    return std::isdigit(c) != 0 || c == ':' || c == '-';
  });
  if (!is_good)
    throw UsageError("--time: '" + time +
                     "' is not a Slurm time. Write minutes, HH:MM:SS or D-HH:MM:SS.");
}

std::string job_name_of(std::string name) {
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '-' && c != '_' && c != '.')
      c = '-';
  }
  return name.empty() ? "trireme" : name;
}

std::string options_of(const SlurmRequest& request, int num_ranks) {
  std::string text;
  const auto option = [&text](const std::string& name, const std::string& value) {
    check_word("--" + name, value);
    text += "#SBATCH --" + name + "=" + value + "\n";
  };
  option("job-name", job_name_of(request.job_name));
  option("nodes", std::to_string(request.num_nodes));
  option("ntasks", std::to_string(num_ranks));
  if (num_ranks % request.num_nodes == 0) {
    option("ntasks-per-node", std::to_string(num_ranks / request.num_nodes));
  }
  if (request.gpus_per_node > 0) option("gpus-per-node", std::to_string(request.gpus_per_node));
  if (request.cpus_per_task > 0) option("cpus-per-task", std::to_string(request.cpus_per_task));
  if (!request.time.empty()) {
    check_time(request.time);
    option("time", request.time);
  }
  if (!request.partition.empty()) option("partition", request.partition);
  if (!request.account.empty()) option("account", request.account);
  if (!request.qos.empty()) option("qos", request.qos);
  const bool is_array = request.source == SlurmRequest::Source::kCommandFile ||
                        request.source == SlurmRequest::Source::kCommands;
  if (!request.commands.empty()) option("array", "1-" + std::to_string(request.commands.size()));
  // "B:": to this script alone; it tells the ranks.
  option("signal", "B:USR1@" + std::to_string(request.grace_seconds));
  text += "#SBATCH --requeue\n#SBATCH --open-mode=append\n";
  text += is_array ? "#SBATCH --output=%x-%A_%a.log\n" : "#SBATCH --output=%x-%j.log\n";
  return text;
}

std::string words_of(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : " ") + shell_quoted(word);
  return text;
}

// Sets run_dir and, where the script takes them from outside, arguments.
std::string run_of(const SlurmRequest& request) {
  switch (request.source) {
    case SlurmRequest::Source::kFilledIn:
      return "run_dir=" + shell_quoted(request.run_dir) + "\n";
    case SlurmRequest::Source::kScriptArguments:
      return R"sh(config=${1:?usage: sbatch SCRIPT CONFIG RUN_DIR}
run_dir=${2:?usage: sbatch SCRIPT CONFIG RUN_DIR}
arguments=(train "$config" --run-dir "$run_dir")
)sh";
    case SlurmRequest::Source::kCommandFile:
      return R"sh(# Line i of the file is the run of task i: what follows `trireme`, quoted as for a shell, such as
#   train studies/batch/b64/config.toml
file=${1:?usage: sbatch --array=1-N SCRIPT FILE}
line=$(sed -n "${SLURM_ARRAY_TASK_ID:?this is for sbatch --array}p" "$file")
[ -n "$line" ] || { echo "$file has no line $SLURM_ARRAY_TASK_ID" >&2; exit 2; }
eval "arguments=($line)"
run_dir=$(dirname "${arguments[1]:-.}")
for ((i = 0; i + 1 < ${#arguments[@]}; i++)); do
  [ "${arguments[i]}" = --run-dir ] && run_dir=${arguments[i + 1]}
done
)sh";
    case SlurmRequest::Source::kCommands: {
      std::string text =
          "line=$(sed -n \"${SLURM_ARRAY_TASK_ID:?this is for sbatch --array}p\" <<'END'\n";
      for (const auto& command : request.commands) text += words_of(command) + "\n";
      return text + "END\n)\neval \"arguments=($line)\"\nrun_dir=" +
             shell_quoted(request.run_dir) + "/${arguments[-1]}\n";
    }
  }
  throw InternalError("a batch script without a source");
}

std::string environment_of(const SlurmRequest& request) {
  std::string text =
      "export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}\n"
      "export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}  # srun does not take it from sbatch.\n";
  if (request.gpus_per_node > 0) text += "export CUDA_DEVICE_ORDER=PCI_BUS_ID\n";
  if (!request.container.empty())
    text += "export OMPI_MCA_btl_vader_single_copy_mechanism=none  # Containers forbid it.\n";
  return text;
}

bool is_apptainer(const SlurmRequest& request) { return request.container.ends_with(".sif"); }

std::string command_of(const SlurmRequest& request) {
  const std::string arguments = request.source == SlurmRequest::Source::kFilledIn
                                    ? " " + words_of(request.arguments)
                                    : " \"${arguments[@]}\"";
  const std::string program = shell_quoted(request.container.empty() ? request.program : "trireme");
  if (request.starter == SlurmRequest::Starter::kProgram) return program + arguments;
  // Each rank sees all GPUs of its node, else it could not reach its neighbours' memory.
  std::string text = "srun --mpi=pmix --kill-on-bad-exit=1";
  if (request.gpus_per_node > 0) text += " --gpu-bind=none";
  if (!request.container.empty() && !is_apptainer(request)) {
    text += " --container-image=" + shell_quoted(request.container) +
            " --container-workdir=\"$PWD\" --container-mounts=" +
            (request.mounts.empty() ? "\"$PWD:$PWD\"" : shell_quoted(request.mounts));
  }
  if (is_apptainer(request)) {
    text += std::string(" apptainer exec") + (request.gpus_per_node > 0 ? " --nv" : "") +
            " --bind " + (request.mounts.empty() ? "\"$PWD\"" : shell_quoted(request.mounts)) +
            " --pwd \"$PWD\" " + shell_quoted(request.container);
  }
  return text + " " + program + arguments;
}

// The shell must outlive the signals to requeue the job. Job control keeps what is meant for the
// shell from the process group of its child.
constexpr const char* kTrap = R"sh(set -m
child=
signalled=
tell_ranks() { [ -z "$child" ] || kill -USR1 "$child" 2>/dev/null; }
trap 'signalled=1; tell_ranks' USR1 TERM
)sh";
constexpr const char* kBody = R"sh(child=$!
[ -z "$signalled" ] || tell_ranks
while :; do
  signalled=
  wait "$child"
  code=$?
  [ -n "$signalled" ] || break  # Else a signal may have ended `wait`, not the ranks.
done
trap '' USR1 TERM

# SIGUSR1 before the ranks could take it: nothing is lost, and the job runs again.
[ "$code" -eq 138 ] && code=75
[ "$code" -eq 75 ] || exit "$code"

job=${SLURM_ARRAY_TASK_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}  # In an array that may name the whole array.
# The ranks stopped after a checkpoint. The job runs again and goes on from there, unless it was
# cancelled or Slurm has requeued it already,
state=$(scontrol show job "$job" --oneliner | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p')
if [ "$state" != RUNNING ]; then
  echo "not requeued: the job is $state"
  exit 75
fi
# or it has stopped three times in a row without a new checkpoint.
stalls=$run_dir/stalls.$job
if [ "$(newest)" != "$before" ]; then
  rm -f "$stalls"
elif [ -d "$run_dir" ]; then
  echo stop >>"$stalls"
  if [ "$(wc -l <"$stalls")" -ge 3 ]; then
    echo "not requeued: stopped three times without a new checkpoint in $run_dir" >&2
    exit 75
  fi
fi
scontrol requeue "$job"
exit 75
)sh";

int ranks_of(const SlurmRequest& request) {
  if (request.num_nodes < 1) throw UsageError("--nodes must be at least 1.");
  if (request.num_ranks == 0 && request.gpus_per_node == 0) {
    throw UsageError(
        "--slurm needs to know how many ranks: give --gpus-per-node (one rank a GPU) or -n.");
  }
  const int num_ranks =
      request.num_ranks > 0 ? request.num_ranks : request.num_nodes * request.gpus_per_node;
  if (num_ranks < request.num_nodes) {
    throw UsageError("-n " + std::to_string(num_ranks) + " leaves some of " +
                     std::to_string(request.num_nodes) +
                     " nodes without a rank. Ask for fewer --nodes.");
  }
  if (request.gpus_per_node > 0 && num_ranks > request.num_nodes * request.gpus_per_node) {
    throw UsageError("-n " + std::to_string(num_ranks) + " asks for more ranks than the " +
                     std::to_string(request.num_nodes * request.gpus_per_node) +
                     " GPUs of the job, and a GPU takes one rank. Ask for more --nodes.");
  }
  if (!request.container.empty() && request.starter == SlurmRequest::Starter::kProgram) {
    throw UsageError(
        "--container is for srun, which starts a container a rank: leave --starter out.");
  }
  return num_ranks;
}
}  // namespace

std::string slurm_script(const SlurmRequest& request) {
  std::string text = "#!/bin/bash\n" + options_of(request, ranks_of(request)) + "\n" + kTrap;
  if (!request.working_directory.empty())
    text += "cd " + shell_quoted(request.working_directory) + " || exit 2\n";
  text += run_of(request) + environment_of(request);
  text += "newest() { readlink \"$run_dir/checkpoints/latest\"; }\nbefore=$(newest)\n\n";
  return text + command_of(request) + " &\n" + kBody;
}
}  // namespace trireme
