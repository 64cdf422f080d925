#include "launcher/topology.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>

#include <hwloc.h>

#include "core/error.h"
#include "core/handle.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

struct TopologyDeleter {
  static hwloc_topology_t null() { return nullptr; }
  static void destroy(hwloc_topology_t topology) noexcept { hwloc_topology_destroy(topology); }
};
using Topology = UniqueHandle<hwloc_topology_t, TopologyDeleter>;

// Null where hwloc cannot look.
Topology load_topology(const fs::path& xml) {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return Topology();
  Topology topology(raw);
  if (!xml.empty() && hwloc_topology_set_xml(raw, xml.c_str()) != 0) {
    throw InputError("\"" + xml.string() + "\" is not a topology that hwloc can read.");
  }
  if (hwloc_topology_load(raw) != 0) return Topology();
  return topology;
}

CpuList cpus_of(hwloc_const_bitmap_t set, const CpuList& allowed) {
  CpuList cpus;
  for (const int cpu : allowed) {
    if (hwloc_bitmap_isset(set, static_cast<unsigned>(cpu)) != 0) cpus.push_back(cpu);
  }
  return cpus;
}

CpuList all_cpus(hwloc_topology_t topology) {
  CpuList cpus;
  unsigned cpu = 0;
  hwloc_bitmap_foreach_begin(cpu, hwloc_topology_get_allowed_cpuset(topology)) {
    cpus.push_back(static_cast<int>(cpu));
  }
  hwloc_bitmap_foreach_end();
  return cpus;
}

std::vector<Core> cores_of(hwloc_topology_t topology, const CpuList& allowed) {
  std::vector<Core> cores;
  for (hwloc_obj_t core = nullptr;
       (core = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_CORE, core)) != nullptr;) {
    CpuList cpus = cpus_of(core->cpuset, allowed);
    if (cpus.empty()) continue;
    const int node = hwloc_bitmap_first(core->nodeset);
    cores.push_back({.cpus = std::move(cpus), .numa_node = std::max(0, node)});
  }
  return cores;
}

// Whole cores that the container's quota pays for; a large number where there is none.
int quota_cores(const fs::path& root) {
  constexpr int kUnlimited = 1 << 20;
  std::ifstream file(root / "sys/fs/cgroup/cpu.max");  // "200000 100000" or "max 100000"
  double quota = 0;
  double period = 0;
  if (!(file >> quota >> period) || quota <= 0 || period <= 0) return kUnlimited;
  return std::max(1, static_cast<int>(quota / period));
}

// Cores [first, last) as a rank's place; `feeds_gpu`: one thread of it serves a device.
enum class RankDuty { kOnCpu, kFeedsGpu };
RankPlacement placement(std::span<const Core> cores, RankDuty duty) {
  RankPlacement result;
  std::set<int> nodes;
  for (const auto& core : cores) {
    nodes.insert(core.numa_node);
    result.compute.push_back(core.cpus.front());
    result.cpus.insert(result.cpus.end(), core.cpus.begin(), core.cpus.end());
    result.helpers.insert(result.helpers.end(), core.cpus.begin() + 1, core.cpus.end());
  }
  if (result.helpers.empty() && duty == RankDuty::kFeedsGpu && cores.size() > 1)
    result.helpers.assign(result.compute.begin() + 1, result.compute.end());
  for (auto* list : {&result.cpus, &result.compute, &result.helpers}) std::ranges::sort(*list);
  if (nodes.size() == 1) result.numa_node = *nodes.begin();
  return result;
}

// Part `index` of `count` equal parts; what does not divide stays free.
std::span<const Core> share_of(std::span<const Core> cores, size_t index, size_t count) {
  const size_t size = cores.size() / count;
  return cores.subspan(index * size, size);
}

std::vector<Core> cores_on(const Machine& machine, int numa_node) {
  std::vector<Core> cores;
  std::ranges::copy_if(machine.cores, std::back_inserter(cores),
                       [&](const Core& core) { return core.numa_node == numa_node; });
  return cores;
}

// Whether each GPU's node has at least a core for each of the ranks whose GPUs are near it.
bool fits_near_gpus(const Machine& machine, size_t num_ranks) {
  for (size_t rank = 0; rank < num_ranks; ++rank) {
    const int node = machine.gpus[rank].numa_node;
    const auto near = static_cast<size_t>(
        std::count_if(machine.gpus.begin(), machine.gpus.begin() + static_cast<long>(num_ranks),
                      [&](const Gpu& gpu) { return gpu.numa_node == node; }));
    if (node < 0 || cores_on(machine, node).size() < near) return false;
  }
  return true;
}

RankPlacement place_near_gpu(const Machine& machine, size_t rank, size_t num_ranks) {
  const int node = machine.gpus[rank].numa_node;
  size_t before = 0;
  size_t sharing = 0;
  for (size_t other = 0; other < num_ranks; ++other) {
    if (machine.gpus[other].numa_node != node) continue;
    if (other < rank) ++before;
    ++sharing;
  }
  const std::vector<Core> near = cores_on(machine, node);
  return placement(share_of(near, before, sharing), RankDuty::kFeedsGpu);
}
}  // namespace

int Machine::num_numa_nodes() const {
  std::set<int> nodes;
  for (const auto& core : cores) nodes.insert(core.numa_node);
  return std::max(1, static_cast<int>(nodes.size()));
}

MachineSource this_machine() {
  return {.root = "/",
          .topology_xml = {},
          .allowed = std::nullopt,
          .visible_devices = std::getenv("CUDA_VISIBLE_DEVICES")};
}

Machine detect_machine(const MachineSource& source) {
  const Topology topology = load_topology(source.topology_xml);
  CpuList allowed = source.allowed.value_or(CpuList{});
  if (!source.allowed) {
    allowed = source.topology_xml.empty() || !topology ? current_cpus() : all_cpus(topology.get());
  }
  if (allowed.empty()) allowed = {0};
  Machine machine;
  if (topology) machine.cores = cores_of(topology.get(), allowed);
  if (machine.cores.empty()) {  // hwloc knows no cores in some virtual machines.
    for (const int cpu : allowed) machine.cores.push_back({.cpus = {cpu}, .numa_node = 0});
  }
  const int quota = quota_cores(source.root);
  machine.num_cores = std::min(quota, static_cast<int>(machine.cores.size()));
  machine.num_processing_units = std::min(quota, static_cast<int>(allowed.size()));
  machine.gpus = detect_gpus(source.root, source.visible_devices);
  return machine;
}

std::vector<RankPlacement> place_ranks(const Machine& machine, int local_size) {
  check(local_size >= 1, "a host without ranks");
  const auto num_ranks = static_cast<size_t>(local_size);
  std::vector<RankPlacement> placements(num_ranks);
  if (num_ranks > static_cast<size_t>(machine.num_cores) || num_ranks > machine.cores.size())
    return placements;
  const bool on_gpus = num_ranks <= machine.gpus.size();
  const bool near_gpus = on_gpus && fits_near_gpus(machine, num_ranks);
  for (size_t rank = 0; rank < num_ranks; ++rank) {
    placements[rank] = near_gpus ? place_near_gpu(machine, rank, num_ranks)
                                 : placement(share_of(machine.cores, rank, num_ranks),
                                             on_gpus ? RankDuty::kFeedsGpu : RankDuty::kOnCpu);
  }
  return placements;
}
}  // namespace trireme
