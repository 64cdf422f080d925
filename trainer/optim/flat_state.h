#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/optim/optimizer.h"

namespace trireme::internal {

// Throws UsageError naming parallel.shard_optimizer unless every range holds each tensor of its
// bucket entirely or not at all: what an optimizer with norms of whole tensors needs.
void require_whole_tensors(const std::vector<FlatBucket>& buckets,
                           const std::vector<FlatRange>& ranges, const std::string& optimizer);

// `name` from `reader` as float32 with `shape`; InputError naming file and tensor where it is
// missing or misshapen.
[[nodiscard]] at::Tensor read_state(const SafetensorsReader& reader, const std::string& name,
                                    const std::vector<int64_t>& shape);

// Runs `change`, which may change `tensors` and nothing else, where `grad_scale` is finite; else
// leaves them as they are. On a device the host does not wait for that: the change is made, and
// taken back there.
void change_if_finite(const at::Tensor& grad_scale, const std::vector<at::Tensor>& tensors,
                      const std::function<void()>& change);

// Optimizer state that has one float a parameter in each of a few slots ("exp_avg"): zero at first,
// held for the ranges only. `buckets` outlive it. Local.
class FlatState {
 public:
  // A slot's name precedes the parameters' names ("exp_avg/NAME"); an empty one leaves them alone.
  FlatState(const std::vector<FlatBucket>& buckets, const std::vector<FlatRange>& ranges,
            std::vector<std::string> slots);

  // (last - first) of bucket b.
  [[nodiscard]] const at::Tensor& values(size_t slot, size_t bucket) const {
    return values_[slot][bucket];
  }
  // A segment's part, in the parameter's shape. REQUIRES: the range holds it entirely.
  [[nodiscard]] at::Tensor segment(size_t slot, size_t bucket, const FlatSegment& segment) const;
  [[nodiscard]] int num_slots() const noexcept { return static_cast<int>(slots_.size()); }

  [[nodiscard]] NamedTensors tensors() const;  // As Optimizer::state().
  void load(const SafetensorsReader& reader);  // As Optimizer::load_state().

 private:
  const std::vector<FlatBucket>& buckets_;
  std::vector<FlatRange> ranges_;
  std::vector<std::string> slots_;
  std::vector<std::vector<at::Tensor>> values_;  // By slot, then bucket.
};
}  // namespace trireme::internal
