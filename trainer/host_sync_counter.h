#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace trireme {

// Counts the operators of this thread that make the host wait for a device: those that hand the
// host a number or a data-dependent shape, and copies to or from a device that block. They are
// operators on a CPU too, where nothing waits, so that a CPU shows what a GPU would do. For
// debugging and tests: looking at every operator costs time. One at a time in a thread.
class HostSyncCounter {
 public:
  HostSyncCounter();
  ~HostSyncCounter();
  HostSyncCounter(const HostSyncCounter&) = delete;
  HostSyncCounter& operator=(const HostSyncCounter&) = delete;

  [[nodiscard]] int64_t count() const noexcept { return static_cast<int64_t>(names_.size()); }
  [[nodiscard]] const std::vector<std::string>& names() const noexcept { return names_; }
  void reset() noexcept { names_.clear(); }

  void add(const char* name) { names_.emplace_back(name); }  // For the operator hook.

 private:
  std::vector<std::string> names_;
  uint64_t watch_;
};
}  // namespace trireme
