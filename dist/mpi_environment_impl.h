#pragma once
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dist/mpi_channel.h"
#include "dist/mpi_environment.h"

namespace trireme {

// What dist/'s own files see of the environment. Brings <mpi.h> along.
struct MpiEnvironment::Impl {
  int rank = 0;
  int world_size = 1;
  int local_rank = 0;
  int local_size = 1;
  int num_nodes = 1;
  int num_exceptions = 0;  // In flight when MPI was started.
  double timeout_seconds = 600.0;
  std::optional<double> forced_timeout_seconds;  // TRIREME_TIMEOUT_SECONDS
  std::vector<std::string> hosts;                // By rank.
  UniqueComm node;                               // The ranks of this node.
  std::unique_ptr<MpiChannel> control;
  std::unique_ptr<MpiChannel> failure;  // Carries one agreement, in run_as_rank(), if any.
  std::exception_ptr agreed;            // The error that all ranks last agreed on.
};
}  // namespace trireme
