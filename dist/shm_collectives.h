#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "dist/shm_group.h"

namespace trireme {

// The shared buffers that this rank holds, by a number that all ranks have in common. Any thread.
class ShmRegistry {
 public:
  int64_t add(std::shared_ptr<ShmSegment> segment);
  void remove(int64_t number) noexcept;
  [[nodiscard]] std::shared_ptr<ShmSegment> find(int64_t number) const;
  // Fills in where `view` is resident, if this rank's part of a segment holds it.
  void locate(const BufferView& view, int rank, ShmRequest& request) const;

 private:
  mutable std::mutex mutex_;
  std::map<int64_t, std::shared_ptr<ShmSegment>> segments_;
  int64_t next_ = 0;
};

// Collectives of the ranks of one node on memory that all of them see. Internal to dist/; blocking,
// on one thread.
//
// Where every rank's input is resident, ranks read it where it lies, between two barriers.
// Otherwise inputs pass by pieces through a resident scratch, one half after the other: a half is
// written again only after a barrier that every reader of it has entered.
class ShmCollectives {
 public:
  ShmCollectives(ShmGroup& group, std::shared_ptr<ShmRegistry> registry,
                 std::unique_ptr<ShmSegment> scratch, size_t scratch_bytes);

  // `request` describes this rank's `in`; for all_reduce and broadcast `in` is also the result.
  void run(const ShmRequest& request, BufferView in, BufferView out);

 private:
  // Inputs of all ranks as this rank sees them; empty unless all are resident.
  [[nodiscard]] std::vector<std::byte*> resident_inputs(std::string_view what);
  void run_resident(const ShmRequest& request, std::span<std::byte* const> inputs, BufferView in,
                    BufferView out);
  void stage_all_reduce(ReduceOp op, BufferView buffer);
  void stage_broadcast(BufferView buffer, int root);
  void stage_all_gather(BufferView in, BufferView out);
  void stage_reduce_scatter(BufferView in, BufferView out);
  void stage_all_to_all(BufferView in, BufferView out);

  // Elements that fit a half of the scratch `num_parts` times.
  [[nodiscard]] int64_t piece_elements(ScalarType type, int num_parts) const;
  [[nodiscard]] std::byte* half(int rank) const noexcept;
  [[nodiscard]] std::vector<std::byte*> halves() const;
  void next_half() noexcept { half_ ^= 1U; }

  ShmGroup& group_;
  std::shared_ptr<ShmRegistry> registry_;
  std::vector<std::shared_ptr<ShmSegment>> held_;  // By the operation in progress.
  std::unique_ptr<ShmSegment> scratch_;
  size_t half_bytes_;
  unsigned half_ = 0;
};
}  // namespace trireme
