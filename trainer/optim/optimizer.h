#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/config.h"
#include "trainer/models/safetensors.h"

namespace trireme {

namespace internal {
class FlatState;
class StepScalars;
}  // namespace internal

// A parameter's place in a flat buffer.
struct FlatSegment {
  std::string name;  // diffusers' name
  std::vector<int64_t> shape;
  int64_t offset = 0;  // In elements, from the buffer's start; a multiple of 256.
  int64_t num_elements = 0;
  double lr_multiplier = 1.0;     // Times the learning rate, and so times decoupled decay.
  double decay_multiplier = 1.0;  // Times optim.weight_decay.
  // Of the parameter's dense memory order; empty: contiguous. Weights in channels_last differ.
  std::vector<int64_t> strides = {};
};
// The segment's elements in `flat`, a buffer in which they start at `offset`, in the parameter's
// shape and memory order. A view.
[[nodiscard]] at::Tensor segment_view(const at::Tensor& flat, int64_t offset,
                                      const FlatSegment& segment);
// A tensor of the segment's shape as its elements lie in a buffer. (num_elements); may be a copy.
[[nodiscard]] at::Tensor in_memory_order(const at::Tensor& tensor, const FlatSegment& segment);

// One flat bucket: parameters, gradients and where each tensor lies. Padding between segments is
// zero.
struct FlatBucket {
  at::Tensor params;  // (n) float32
  at::Tensor grads;   // (n) float32
  std::vector<FlatSegment> segments;
};

// What an optimizer updates of a bucket: elements [first, last), the whole or a shard's range.
struct FlatRange {
  int64_t first = 0;
  int64_t last = 0;
};

// An optimizer over flat ranges, with the semantics of torch.optim where it has them. Owns its
// state (allocated for the ranges only). Local: identical on all ranks, or each its shard.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // One update of every range from the buckets' gradients, each multiplied by `grad_scale` (0-d,
  // float32, on the parameters' device: clipping without a host synchronisation). Where grad_scale
  // is not finite nothing changes, neither parameters nor state. step counts from 1. On a device
  // the host waits for nothing, and what depends on `step` and `lr` is read from tensors there.
  virtual void step(int64_t step, double lr, const at::Tensor& grad_scale) = 0;

  // State by parameter, "exp_avg/NAME", whole tensors in the parameter's shape, independent of
  // buckets and ranges; views where the range holds all of a tensor. What a range does not hold is
  // zero, so that the sum over ranks is the whole.
  [[nodiscard]] virtual NamedTensors state() const = 0;
  // Throws InputError naming what is missing or misshapen.
  virtual void load_state(const SafetensorsReader& reader) = 0;
  // Floats of state per parameter; 0 where it is sublinear.
  [[nodiscard]] virtual int num_state_tensors() const noexcept = 0;
};

// `buckets` outlive the optimizer, and their segments' multipliers are read here and now
// (parameter_groups.h sets them); `ranges` has one entry a bucket (whole buckets when empty).
// Throws UsageError naming parallel.shard_optimizer where lamb, lars or adafactor get parts of
// tensors. Formulas and sources: docs/optimizers.md.
[[nodiscard]] std::unique_ptr<Optimizer> make_optimizer(const OptimOptions& options,
                                                        std::vector<FlatBucket>& buckets,
                                                        std::vector<FlatRange> ranges = {});

// Exponential moving average of the parameters (docs/config.md, [ema]) of the ranges; starts as a
// copy. `ranges` as in make_optimizer().
class Ema {
 public:
  Ema(double decay, std::vector<FlatBucket>& buckets, std::vector<FlatRange> ranges = {});
  ~Ema();
  // After update s = `step` (from 1): d = min(decay, (1 + s) / (10 + s)). Where grad_scale, as it
  // was given to Optimizer::step(), is not finite no update was made, and nothing changes.
  void update(int64_t step, const at::Tensor& grad_scale);
  // By parameter name; views where the range holds all of a tensor, zero where it holds nothing.
  [[nodiscard]] NamedTensors tensors() const;
  // Exchanges the parameters' values with the averages; twice restores them.
  void swap();

 private:
  double decay_;
  std::vector<FlatBucket>& buckets_;
  std::vector<FlatRange> ranges_;
  std::unique_ptr<internal::FlatState> averages_;
  std::unique_ptr<internal::StepScalars> scalars_;
};

// Sum of squares of all gradients, added without rounding over blocks of 256 (exact_sum.h): the
// same bits for the same gradients at any number of ranks and threads. 0-d, float64.
[[nodiscard]] at::Tensor sum_of_squares(const std::vector<FlatBucket>& buckets);
}  // namespace trireme
