#include "launcher/allocation.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "core/log.h"
#include "launcher/command_output.h"

namespace trireme {
namespace {
int positive_number(const char* variable) {
  const char* text = std::getenv(variable);
  return text == nullptr ? 0 : std::max(0, std::atoi(text));
}
}  // namespace

Allocation find_allocation() {
  Allocation allocation;
  if (std::getenv("SLURM_JOB_ID") != nullptr) {
    allocation.is_slurm = true;
    allocation.num_nodes = std::max(1, positive_number("SLURM_JOB_NUM_NODES"));
    allocation.num_tasks = positive_number("SLURM_NTASKS");
    allocation.cpus_per_task = positive_number("SLURM_CPUS_PER_TASK");
    allocation.cpus_on_node = positive_number("SLURM_CPUS_ON_NODE");
  } else if (const char* hostfile = std::getenv("PBS_NODEFILE")) {
    allocation.hostfile = hostfile;
  }
  return allocation;
}

Starter starter_here() {
  const CommandOutput list = output_of({"srun", "--mpi=list"});
  if (list.text.find("pmix") != std::string::npos) return Starter::kSrun;
  log::info("srun has no PMIx plug-in here: starting the ranks by mpirun.");
  return Starter::kMpirun;
}

Starter starter_named(const std::string& name) {
  return name == "srun" ? Starter::kSrun : Starter::kMpirun;
}
}  // namespace trireme
