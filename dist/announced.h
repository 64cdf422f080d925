#pragma once
#include <string>

namespace trireme {

// What the environment says of how this process was started.
struct Announced {
  int num_processes = 0;  // 0: nothing was said.
  int rank = 0;
  std::string variable;  // Which variable said so.
};
// OMPI_COMM_WORLD_SIZE, or without it SLURM_STEP_NUM_TASKS or PMI_SIZE. Local.
[[nodiscard]] Announced announced_processes();

// Throws when `announced` has more processes than `world_size`: UsageError with the cure on its
// first process, PeerFailedError on the others.
void check_announced(const Announced& announced, int world_size);

// srun without a PMI: MPI_Init would end the process with a text that helps nobody, so this comes
// first.
void check_direct_launch(const Announced& announced);
}  // namespace trireme
