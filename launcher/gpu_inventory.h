#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace trireme {

struct Gpu {
  std::string pci_address;  // "0000:3b:00.0"; empty where it is not known.
  std::string uuid;         // "GPU-…"; empty where it is not known.
  std::string model;
  int numa_node = -1;         // -1: not known.
  int num_mig_instances = 0;  // Of a GPU in MIG mode: its compute instances.
};

// All GPUs that a process here can open, by the driver's files under `root` ("/"; a test gives
// another), without the driver's library, in the order of their PCI addresses, which is CUDA's with
// CUDA_DEVICE_ORDER=PCI_BUS_ID. In a container, /proc shows the host's GPUs and the device nodes
// only those that the container has.
[[nodiscard]] std::vector<Gpu> all_gpus(const std::filesystem::path& root);

// Those of them that `visible` (CUDA_VISIBLE_DEVICES; null: unset) leaves, as CUDA reads it:
// indices or unambiguous beginnings of UUIDs in any order, up to the first that is not there. MIG
// instances
// ("MIG-…") count as the GPU they are of: CUDA shows a process one of them, so there is at most
// one.
[[nodiscard]] std::vector<Gpu> detect_gpus(const std::filesystem::path& root, const char* visible);
}  // namespace trireme
