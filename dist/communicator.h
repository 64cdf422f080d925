#pragma once
#include <memory>
#include <string_view>

#include "dist/buffer_view.h"
#include "dist/work.h"

namespace trireme {

enum class ReduceOp { kSum, kMax, kMin };

// Memory that a communicator gave out; returned by destroying it, before the communicator.
class CommBuffer {
 public:
  virtual ~CommBuffer() = default;
  [[nodiscard]] virtual BufferView view() const noexcept = 0;
};

// A fixed set of ranks that issue the same collectives in the same order.
//
// Every method marked collective must be called by all ranks in the same order: a rank that skips
// one leaves its peers blocked, so a rank throws before its first call or not at all. Use from one
// thread only. Work may be started on several buffers and waited for in any order.
class Communicator {
 public:
  virtual ~Communicator() = default;
  [[nodiscard]] virtual int rank() const noexcept = 0;  // In [0, world_size()).
  [[nodiscard]] virtual int world_size() const noexcept = 0;
  [[nodiscard]] virtual std::string_view backend()
      const noexcept = 0;  // "local", "mpi", "shm", "nccl"

  // Memory for collectives, 64-byte aligned and zeroed. With shm it lies in the shared window,
  // where reduction has nothing to copy. Any other memory works too. Collective.
  [[nodiscard]] virtual std::unique_ptr<CommBuffer> allocate(int64_t num_elements,
                                                             ScalarType type) = 0;

  // Replaces `buffer` on every rank by the element-wise reduction over all ranks. Collective.
  // REQUIRES: equal num_elements and type on all ranks; `buffer` outlives the returned Work.
  [[nodiscard]] virtual std::unique_ptr<Work> all_reduce(BufferView buffer, ReduceOp op) = 0;
  [[nodiscard]] virtual std::unique_ptr<Work> broadcast(BufferView buffer, int root) = 0;
  // in: n elements; out: world_size() * n, rank r's at r * n. in may be out's own part.
  [[nodiscard]] virtual std::unique_ptr<Work> all_gather(BufferView in, BufferView out) = 0;
  // in: world_size() * n; out: n, the sum over ranks of part rank(). out may be in's own part.
  [[nodiscard]] virtual std::unique_ptr<Work> reduce_scatter(BufferView in, BufferView out) = 0;
  // in, out: world_size() * n; part r of `in` goes to rank r, part r of `out` comes from it.
  [[nodiscard]] virtual std::unique_ptr<Work> all_to_all(BufferView in, BufferView out) = 0;

  // Throws LostError where it is known that work in flight will not end: an error of the network, a
  // deadline that has passed. Cheap; for a caller that waits for a device. Not collective.
  virtual void check_health() {}

  // Frees peers that wait for this rank. Not collective; only destruction may follow.
  virtual void abort() noexcept = 0;
};
}  // namespace trireme
