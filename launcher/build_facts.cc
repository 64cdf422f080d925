#include "launcher/build_facts.h"

#include <build_commit.h>

#include "data/hdf5_facts.h"
#include "dist/mpi_facts.h"
#include "trainer/device_facts.h"

namespace trireme {
std::vector<std::pair<std::string, std::string>> build_facts() {
  const DeviceFacts devices = device_library_facts();
  return {{"version", TRIREME_VERSION},
          {"commit", TRIREME_COMMIT},
          {"build", TRIREME_BUILD_TYPE},
          {"compiler", TRIREME_COMPILER},
          {"libtorch", devices.libtorch},
          {"cuda", devices.cuda_runtime.empty() ? "none" : devices.cuda_runtime},
          {"nccl", devices.nccl.empty() ? "none" : devices.nccl},
          {"mpi", mpi_library_version()},
          {"hdf5", hdf5_facts().version}};
}

std::string version_text() {
  std::string text = "trireme ";
  for (const auto& [name, value] : build_facts())
    text += name == "version" ? value : "\n  " + name + std::string(10 - name.size(), ' ') + value;
  return text;
}
}  // namespace trireme
