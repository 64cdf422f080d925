#pragma once
#include <cstdint>
#include <memory>

#include "dist/mpi_environment.h"

namespace trireme {

struct MpiCommunicatorOptions {
  double timeout_seconds = 600.0;
  int64_t max_count = int64_t{1} << 28;  // Elements a rank sends in one MPI call; more are cut.
  TraceTrack trace = {};                 // Of the thread.
};

// Collectives by MPI on host memory, between any ranks, driven by a thread of their own.
// Collective.
[[nodiscard]] std::unique_ptr<Communicator> make_mpi_communicator(
    MpiEnvironment& mpi, const MpiCommunicatorOptions& options);
}  // namespace trireme
