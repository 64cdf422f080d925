#pragma once
#include <string>

namespace trireme {

struct Hdf5Facts {
  std::string version;  // Of the library that runs.
  std::string headers;  // That this program was built with.
  bool is_thread_safe = false;
  bool is_parallel = false;  // Built for MPI-IO.
};
[[nodiscard]] Hdf5Facts hdf5_facts();
}  // namespace trireme
