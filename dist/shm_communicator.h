#pragma once
#include <memory>
#include <string>

#include "dist/mpi_environment.h"

namespace trireme {

struct ShmCommunicatorOptions {
  double timeout_seconds = 600.0;
  size_t scratch_bytes = size_t{4} << 20;  // A rank's, for memory that is not resident.
  TraceTrack trace = {};                   // Of the thread.
};

struct ShmCreated {
  std::unique_ptr<Communicator> communicator;  // On all ranks or on none.
  std::string reason;                          // Why there is none.
};

// Collectives in shared memory, for ranks that are all on one node. Collective.
// REQUIRES: local_size() == world_size().
[[nodiscard]] ShmCreated make_shm_communicator(MpiEnvironment& mpi,
                                               const ShmCommunicatorOptions& options);
}  // namespace trireme
