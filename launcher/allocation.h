#pragma once
#include <filesystem>

#include "launcher/launch_plan.h"

namespace trireme {

// What a batch system has given this process, by its environment.
struct Allocation {
  bool is_slurm = false;
  int num_nodes = 1;
  int num_tasks = 0;               // 0: not said.
  int cpus_per_task = 0;           // 0: not said.
  int cpus_on_node = 0;            // 0: not said.
  std::filesystem::path hostfile;  // Of PBS; empty: none.
};
[[nodiscard]] Allocation find_allocation();

// srun where its MPI plug-ins (`srun --mpi=list`) include PMIx, else mpirun, which finds the nodes
// of a Slurm allocation by itself.
[[nodiscard]] Starter starter_here();
// "srun" or "mpirun".
[[nodiscard]] Starter starter_named(const std::string& name);
}  // namespace trireme
