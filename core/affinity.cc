#include "core/affinity.h"

#include <algorithm>
#include <array>
#include <climits>
#include <memory>

#include <linux/mempolicy.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace trireme {
namespace {
constexpr int kMostCpus = 1 << 16;

struct CpuSetDeleter {
  void operator()(cpu_set_t* set) const noexcept { CPU_FREE(set); }
};
using CpuSet = std::unique_ptr<cpu_set_t, CpuSetDeleter>;

CpuSet make_set(int num_cpus) {
  CpuSet set(CPU_ALLOC(static_cast<size_t>(num_cpus)));
  if (set) CPU_ZERO_S(CPU_ALLOC_SIZE(static_cast<size_t>(num_cpus)), set.get());
  return set;
}
}  // namespace

CpuList current_cpus() {
  // A kernel that knows more processing units than the set holds refuses; so it grows.
  for (int capacity = CPU_SETSIZE; capacity <= kMostCpus; capacity *= 2) {
    const CpuSet set = make_set(capacity);
    const size_t size = CPU_ALLOC_SIZE(static_cast<size_t>(capacity));
    if (!set || sched_getaffinity(0, size, set.get()) != 0) continue;
    CpuList cpus;
    for (int cpu = 0; cpu < capacity; ++cpu) {
      if (CPU_ISSET_S(static_cast<size_t>(cpu), size, set.get())) cpus.push_back(cpu);
    }
    return cpus;
  }
  return {};
}

bool confine_thread(std::span<const int> cpus) noexcept {
  if (cpus.empty() || *std::ranges::min_element(cpus) < 0) return false;
  const int capacity = *std::ranges::max_element(cpus) + 1;
  const CpuSet set = make_set(capacity);
  if (!set) return false;
  const size_t size = CPU_ALLOC_SIZE(static_cast<size_t>(capacity));
  for (const int cpu : cpus) CPU_SET_S(static_cast<size_t>(cpu), size, set.get());
  return sched_setaffinity(0, size, set.get()) == 0;
}

void prefer_memory_of(int numa_node) noexcept {
  constexpr int kBits = sizeof(unsigned long) * CHAR_BIT;
  std::array<unsigned long, 16> mask{};
  if (numa_node < 0 || numa_node >= static_cast<int>(mask.size()) * kBits) return;
  mask[static_cast<size_t>(numa_node / kBits)] = 1UL << (numa_node % kBits);
  static_cast<void>(
      syscall(SYS_set_mempolicy, MPOL_PREFERRED, mask.data(), mask.size() * kBits + 1));
}

ThreadsStartOn::ThreadsStartOn(std::span<const int> cpus) {
  CpuList before = current_cpus();
  if (confine_thread(cpus)) before_ = std::move(before);
}

ThreadsStartOn::~ThreadsStartOn() { confine_thread(before_); }
}  // namespace trireme
