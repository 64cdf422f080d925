#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "dist/shm_segment.h"

namespace trireme {

// What a rank is about to do, for the others to read between two barriers.
struct ShmRequest {
  enum class Kind : int32_t { kAllReduce, kBroadcast, kAllGather, kReduceScatter, kAllToAll };
  Kind kind = Kind::kAllReduce;
  int32_t op = 0;
  int32_t type = 0;
  int32_t root = 0;
  int64_t num_elements = 0;
  int64_t segment = -1;  // Where its input is resident; -1: in private memory.
  uint64_t offset_bytes = 0;
  [[nodiscard]] bool matches(const ShmRequest& other) const noexcept;
  [[nodiscard]] std::string text() const;
};

// Barriers and requests of the ranks of one node, in shared memory. Internal to dist/. One thread
// of a rank uses it; stop() and give_up() may come from another.
class ShmGroup {
 public:
  // `slots`: a segment whose parts hold at least kSlotBytes, zeroed. A barrier of the caller's
  // follows on all ranks before the first use.
  static constexpr size_t kSlotBytes = 4096;
  ShmGroup(std::unique_ptr<ShmSegment> slots, int rank, int num_ranks, double timeout_seconds);

  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] int size() const noexcept { return num_ranks_; }
  // Returns when every rank has entered. Spins for a moment where each rank has a core, then parks.
  // Throws LostError naming a rank that is late, gone, or gave up.
  void barrier(std::string_view what);
  void publish(const ShmRequest& request) noexcept;
  [[nodiscard]] const ShmRequest& request_of(int rank) const noexcept;

  void stop() noexcept { stopped_.store(true); }  // A barrier in progress throws.
  void give_up() noexcept;                        // Makes the others' barriers throw.

 private:
  struct Slot;
  [[nodiscard]] Slot& slot(int rank) const noexcept;
  void wait_for(int rank, uint32_t target, std::string_view what, double begin);
  void check_alive(int rank, uint32_t target, std::string_view what, double waited_seconds);

  std::unique_ptr<ShmSegment> slots_;
  int rank_;
  int num_ranks_;
  double timeout_seconds_;
  int64_t spin_ns_ = 0;
  uint32_t entered_ = 0;
  std::atomic<bool> stopped_{false};
};
}  // namespace trireme
