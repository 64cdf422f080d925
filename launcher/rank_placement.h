#pragma once
#include <vector>

#include <sys/types.h>

#include "launcher/topology.h"

namespace trireme {
class MpiEnvironment;

// Where this rank is to run among those of its host (place_ranks()). Ranks that mpirun or srun has
// bound to different processing units already stay there. Collective.
[[nodiscard]] RankPlacement place_this_rank(MpiEnvironment& mpi, const Machine& machine);

// Confines the calling thread, and with it those that it starts from now on, to the placement's
// `compute` (to all of it where OMP_NUM_THREADS asks for more threads than that), and prefers
// memory of its node. Call before LibTorch starts threads. Local.
void confine_rank(const RankPlacement& placement);

// The other ranks of this host, where they are visible from here: one process namespace.
// Collective.
[[nodiscard]] std::vector<pid_t> peers_on_this_host(MpiEnvironment& mpi);
}  // namespace trireme
