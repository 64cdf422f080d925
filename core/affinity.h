#pragma once
#include <span>
#include <vector>

namespace trireme {

// Processing units by the operating system's numbers, ascending.
using CpuList = std::vector<int>;

// Those on which the calling thread may run. Empty where the system does not say.
[[nodiscard]] CpuList current_cpus();
// Confines the calling thread, and the threads that it starts from now on, to `cpus`; an empty
// list, or one that the system refuses, changes nothing. Whether it did.
bool confine_thread(std::span<const int> cpus) noexcept;
// Memory that the calling thread and its children touch first comes from this NUMA node while there
// is some; other nodes serve after it. Does nothing where the system forbids it (containers do).
void prefer_memory_of(int numa_node) noexcept;

// Threads that are started during its life run on `cpus`; then the calling thread goes back to
// where it ran before. Made and destroyed by one thread.
class ThreadsStartOn {
 public:
  explicit ThreadsStartOn(std::span<const int> cpus);
  ~ThreadsStartOn();
  ThreadsStartOn(const ThreadsStartOn&) = delete;
  ThreadsStartOn& operator=(const ThreadsStartOn&) = delete;

 private:
  CpuList before_;
};
}  // namespace trireme
