#pragma once
#include <cstddef>
#include <memory>
#include <optional>

#include "dist/mpi_channel.h"

namespace trireme {

// Memory that all ranks of a node have mapped, one equal part a rank. Internal to dist/.
//
// It is an anonymous file (memfd_create) of the channel's rank 0, which the others open through
// /proc: no name to leave behind, no limit by the size of /dev/shm, and unmapping is a local
// matter. Pages are zero and are placed near the rank that touches them first.
class ShmSegment {
 public:
  struct Created {
    std::unique_ptr<ShmSegment> segment;  // On all ranks or on none.
    int error = 0;  // errno of the rank that could not, the same on all ranks.
  };
  // Collective over `node`, whose ranks are on one node.
  [[nodiscard]] static Created create(MpiChannel& node, size_t part_bytes);
  ~ShmSegment();
  ShmSegment(const ShmSegment&) = delete;
  ShmSegment& operator=(const ShmSegment&) = delete;

  [[nodiscard]] std::byte* part(int rank) const noexcept {
    return base_ + static_cast<size_t>(rank) * stride_;
  }
  [[nodiscard]] size_t stride() const noexcept { return stride_; }
  // Where `size_bytes` bytes at `data` lie in the part of `rank`, if they do.
  [[nodiscard]] std::optional<size_t> offset_of(const void* data, size_t size_bytes,
                                                int rank) const noexcept;

 private:
  ShmSegment(std::byte* base, size_t stride, size_t total)
      : base_(base), stride_(stride), total_(total) {}
  std::byte* base_;
  size_t stride_;  // Bytes from part to part: whole pages.
  size_t total_;
};
}  // namespace trireme
