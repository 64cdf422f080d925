#include "bench/raw_mpi.h"

#include <mpi.h>

#include "core/error.h"

namespace trireme::bench {
void mpi_all_reduce(std::span<float> values) {
  check(MPI_Allreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_FLOAT,
                      MPI_SUM, MPI_COMM_WORLD) == MPI_SUCCESS,
        "MPI_Allreduce");
}
void mpi_barrier() { check(MPI_Barrier(MPI_COMM_WORLD) == MPI_SUCCESS, "MPI_Barrier"); }
}  // namespace trireme::bench
