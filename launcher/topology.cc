#include "launcher/topology.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>
#include <system_error>

#include <hwloc.h>
#include <sched.h>

namespace trireme {
namespace {
namespace fs = std::filesystem;

class Topology {
 public:
  Topology() {
    if (hwloc_topology_init(&topology_) != 0) topology_ = nullptr;
    if (topology_ != nullptr && hwloc_topology_load(topology_) != 0) {
      hwloc_topology_destroy(topology_);
      topology_ = nullptr;
    }
  }
  ~Topology() {
    if (topology_ != nullptr) hwloc_topology_destroy(topology_);
  }
  Topology(const Topology&) = delete;
  Topology& operator=(const Topology&) = delete;

  // Objects of a type that hold a processing unit of `allowed`; -1 where that is not known.
  [[nodiscard]] int count(hwloc_obj_type_t type, const cpu_set_t& allowed) const {
    if (topology_ == nullptr) return -1;
    int found = 0;
    for (hwloc_obj_t object = nullptr;
         (object = hwloc_get_next_obj_by_type(topology_, type, object)) != nullptr;) {
      unsigned id = 0;
      bool is_allowed = false;
      hwloc_bitmap_foreach_begin(id, object->cpuset) {
        is_allowed = is_allowed || (id < CPU_SETSIZE && CPU_ISSET(id, &allowed));
      }
      hwloc_bitmap_foreach_end();
      if (is_allowed) ++found;
    }
    return found;
  }

 private:
  hwloc_topology_t topology_ = nullptr;
};

std::string first_line(const fs::path& file) {
  std::ifstream stream(file);
  std::string line;
  std::getline(stream, line);
  return line;
}

std::optional<int> number(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Whole cores that the container's quota pays for; a large number where there is none.
int quota_cores(const fs::path& root) {
  constexpr int kUnlimited = 1 << 20;
  std::istringstream line(
      first_line(root / "sys/fs/cgroup/cpu.max"));  // "200000 100000" or "max 100000"
  double quota = 0;
  double period = 0;
  if (!(line >> quota >> period) || quota <= 0 || period <= 0) return kUnlimited;
  return std::max(1, static_cast<int>(quota / period));
}

// "0-3,8,10-11"
cpu_set_t parse_cpu_list(const std::string& text) {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::istringstream stream(text);
  for (std::string range; std::getline(stream, range, ',');) {
    const size_t dash = range.find('-');
    const auto first = number(range.substr(0, dash));
    const auto last = dash == std::string::npos ? first : number(range.substr(dash + 1));
    if (!first || !last) continue;
    for (int cpu = std::max(0, *first); cpu <= std::min(*last, CPU_SETSIZE - 1); ++cpu)
      CPU_SET(cpu, &set);
  }
  return set;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

// All GPUs of the driver, in the order of their PCI addresses, which is CUDA's with
// CUDA_DEVICE_ORDER= PCI_BUS_ID; in a container without /proc/driver the device nodes tell how many
// there are.
std::vector<Gpu> all_gpus(const fs::path& root) {
  std::vector<Gpu> gpus;
  std::error_code ignored;
  for (fs::directory_iterator entry(root / "proc/driver/nvidia/gpus", ignored), end; entry != end;
       entry.increment(ignored)) {
    gpus.push_back({.pci_address = entry->path().filename().string(), .numa_node = -1});
  }
  std::ranges::sort(gpus, {}, &Gpu::pci_address);
  int num_nodes = 0;
  while (fs::exists(root / ("dev/nvidia" + std::to_string(num_nodes)), ignored)) ++num_nodes;
  // A container sees all entries in /proc but device nodes of its own GPUs only.
  if (static_cast<size_t>(num_nodes) != gpus.size())
    gpus.assign(static_cast<size_t>(num_nodes), Gpu{});
  for (auto& gpu : gpus) {
    if (gpu.pci_address.empty()) continue;
    const auto node =
        number(first_line(root / "sys/bus/pci/devices" / gpu.pci_address / "numa_node"));
    gpu.numa_node = node.value_or(-1);
  }
  return gpus;
}
}  // namespace

std::vector<Gpu> detect_gpus(const fs::path& root, const char* visible) {
  std::vector<Gpu> all = all_gpus(root);
  if (visible == nullptr) return all;
  std::vector<Gpu> chosen;
  for (const auto& name : split(visible, ',')) {
    if (name.starts_with("GPU-") || name.starts_with("MIG-")) {
      chosen.push_back({});  // Named by UUID: it counts, but where it is, the files do not say.
      continue;
    }
    const auto index = number(name);
    if (!index || *index < 0 || static_cast<size_t>(*index) >= all.size()) break;
    chosen.push_back(all[static_cast<size_t>(*index)]);
  }
  return chosen;
}

Machine detect_machine(const fs::path& root) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) CPU_SET(0, &allowed);
  const Topology topology;
  const int quota = quota_cores(root);
  const int units = std::max(1, CPU_COUNT(&allowed));
  const int cores = topology.count(HWLOC_OBJ_CORE, allowed);
  return {.num_cores = std::min(quota, cores > 0 ? cores : units),
          .num_processing_units = std::min(quota, units),
          .num_numa_nodes = std::max(1, topology.count(HWLOC_OBJ_NUMANODE, allowed)),
          .gpus = detect_gpus(root, std::getenv("CUDA_VISIBLE_DEVICES"))};
}

void bind_near_gpu(const Machine& machine, int local_rank, int local_size) {
  if (local_rank < 0 || static_cast<size_t>(local_rank) >= machine.gpus.size()) return;
  const Gpu& mine = machine.gpus[static_cast<size_t>(local_rank)];
  if (mine.pci_address.empty()) return;
  const fs::path device = fs::path("/sys/bus/pci/devices") / mine.pci_address;
  const cpu_set_t near = parse_cpu_list(first_line(device / "local_cpulist"));
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  std::vector<int> usable;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &near) && CPU_ISSET(cpu, &allowed)) usable.push_back(cpu);
  }
  int sharing = 0;
  int before = 0;
  for (int rank = 0; rank < std::min(local_size, static_cast<int>(machine.gpus.size())); ++rank) {
    if (machine.gpus[static_cast<size_t>(rank)].numa_node != mine.numa_node) continue;
    ++sharing;
    if (rank < local_rank) ++before;
  }
  const size_t share = sharing > 0 ? usable.size() / static_cast<size_t>(sharing) : 0;
  if (share == 0) return;
  cpu_set_t own;
  CPU_ZERO(&own);
  for (size_t i = 0; i < share; ++i) {
    CPU_SET(static_cast<size_t>(usable[static_cast<size_t>(before) * share + i]), &own);
  }
  sched_setaffinity(0, sizeof own, &own);
}
}  // namespace trireme
