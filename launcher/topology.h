#pragma once
#include <filesystem>
#include <optional>
#include <vector>

#include "core/affinity.h"
#include "launcher/gpu_inventory.h"

namespace trireme {

// A physical core as far as this process may use it.
struct Core {
  CpuList cpus;       // Its processing units (hyper-threads).
  int numa_node = 0;  // By the operating system's number.
};

// What a host has for ranks. Plain values, so that plans can be made for machines that are not
// here.
struct Machine {
  std::vector<Core> cores;  // In the order of packages and NUMA nodes.
  int num_cores = 1;        // Of them as many as the container's CPU quota pays for.
  int num_processing_units = 1;
  std::vector<Gpu> gpus;  // Those that CUDA_VISIBLE_DEVICES leaves visible.

  [[nodiscard]] int num_numa_nodes() const;
};

// Where detect_machine() looks; tests give recorded places.
struct MachineSource {
  std::filesystem::path root = "/";    // Of the driver's and the kernel's files.
  std::filesystem::path topology_xml;  // Written by hwloc; empty: this machine.
  std::optional<CpuList> allowed;      // Processing units; unset: this thread's.
  const char* visible_devices = nullptr;
};
// This machine as this process sees it: affinity mask and CUDA_VISIBLE_DEVICES of its environment.
[[nodiscard]] MachineSource this_machine();

// Cores by hwloc, the affinity mask and the container's CPU quota; GPUs by detect_gpus(). Local.
[[nodiscard]] Machine detect_machine(const MachineSource& source = this_machine());

// Where a rank and its threads run.
struct RankPlacement {
  CpuList cpus;        // All of the rank's; empty: not confined.
  CpuList compute;     // One processing unit a core: the training thread and LibTorch's.
  CpuList helpers;     // Loader and communication threads; empty: as the rank.
  int numa_node = -1;  // Of its memory; -1: several.
};

// One placement a rank of a host with `local_size` ranks. Rank i of a machine with that many GPUs
// has GPU i and shares the cores of its NUMA node evenly with the others there; without GPUs the
// ranks share the cores in order. Loader and communication threads get the second hyper-thread of
// the rank's cores or, without those, on GPUs all cores but the first, whose thread feeds the
// device. More ranks than cores are not confined.
[[nodiscard]] std::vector<RankPlacement> place_ranks(const Machine& machine, int local_size);
}  // namespace trireme
