#pragma once
#include <string>

namespace trireme {

// Of the MPI library that runs: "Open MPI 4.1.4". Needs no MpiEnvironment.
[[nodiscard]] std::string mpi_library_version();
// "4.2.2"; empty where no PMIx library is found.
[[nodiscard]] std::string pmix_version();
// "MPI_THREAD_MULTIPLE" and the like. REQUIRES: an MpiEnvironment.
[[nodiscard]] std::string mpi_thread_level();
}  // namespace trireme
