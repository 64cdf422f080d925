#pragma once
#include <cstdint>
#include <functional>

#include "dist/mpi_environment.h"

namespace trireme {

// Deals groups 0 … num_groups - 1 to the ranks in contiguous runs and calls `work` for each group
// of this rank, on `num_workers` threads with one LibTorch thread each. Between rounds the ranks
// agree on failures (as run_on_all_ranks) and `report` is called with the number of groups done by
// all. Collective.
void run_groups(MpiEnvironment& mpi, int64_t num_workers, int64_t num_groups,
                const std::function<void(int64_t group)>& work,
                const std::function<void(int64_t num_done)>& report);
}  // namespace trireme
