#pragma once
#include <memory>

#include "dist/mpi_environment.h"

namespace trireme {
// Collectives on GPUs, one rank a GPU. Collective. Only in builds with CUDA. REQUIRES:
// options.device >= 0.
[[nodiscard]] std::unique_ptr<Communicator> make_nccl_communicator(
    MpiEnvironment& mpi, const CommunicatorOptions& options);
}  // namespace trireme
