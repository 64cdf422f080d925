#include "launcher/slurm_script.h"

#include <algorithm>
#include <cctype>

#include "core/error.h"
#include "launcher/topology.h"

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
  text += "#SBATCH --signal=B:USR1@60\n#SBATCH --requeue\n#SBATCH --open-mode=append\n";
  text += "#SBATCH --output=%x-%j.log\n";
  return text;
}

// The shell must outlive the signal to requeue the job; `wait` returns early when a trap has run.
constexpr const char* kBody = R"(child=$!
trap 'kill -USR1 "$child" 2>/dev/null' USR1 TERM
wait "$child"
code=$?
while [ "$code" -gt 128 ] && kill -0 "$child" 2>/dev/null; do
  wait "$child"
  code=$?
done
# 75: stopped after a checkpoint. The job runs again and goes on from there.
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
)";
}  // namespace

std::string slurm_script(const SlurmRequest& request) {
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
  std::string text = "#!/bin/bash\n" + options_of(request, num_ranks) + "\n";
  if (!request.working_directory.empty())
    text += "cd " + shell_quoted(request.working_directory) + " || exit 2\n";
  text += "export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}\n";
  if (request.gpus_per_node > 0) text += "export CUDA_DEVICE_ORDER=PCI_BUS_ID\n";
  text += "srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task=\"${SLURM_CPUS_PER_TASK:-1}\" " +
          shell_quoted(request.program);
  for (const auto& argument : request.arguments) text += " " + shell_quoted(argument);
  return text + " &\n" + kBody;
}
}  // namespace trireme
