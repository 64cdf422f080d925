#pragma once
#include <span>

namespace trireme::bench {
// MPI_Allreduce (sum) on host memory over all ranks, as any MPI program would call it. Collective.
void mpi_all_reduce(std::span<float> values);
// Blocks until all ranks are here. Collective.
void mpi_barrier();
}  // namespace trireme::bench
