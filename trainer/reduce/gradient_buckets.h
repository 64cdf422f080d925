#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "dist/communicator.h"
#include "trainer/optim/optimizer.h"

namespace trireme {

using NamedParameters = std::vector<std::pair<std::string, at::Tensor>>;

struct BucketOptions {
  int64_t bucket_elements = int64_t{25} << 18;       // 25 MiB of float32
  int64_t first_bucket_elements = int64_t{1} << 18;  // 1 MiB: reduction starts early.
};

// Which tensors share a bucket, as indices into the parameters, in the order in which backward
// produces their gradients.
using BucketPlan = std::vector<std::vector<size_t>>;
[[nodiscard]] BucketPlan plan_buckets(const std::vector<size_t>& gradient_order,
                                      const std::vector<int64_t>& num_elements,
                                      const BucketOptions& options);

// Runs `backward` once and returns the indices of `parameters` in the order in which their
// gradients were accumulated; gradients are discarded. A tensor that got none is a UsageError
// naming it.
[[nodiscard]] std::vector<size_t> measure_gradient_order(const NamedParameters& parameters,
                                                         const std::function<void()>& backward);

// The trainable parameters in a few flat, contiguous buckets. Parameter tensors become views of
// their bucket's parameter storage, and their `grad()` views of its gradient storage, which comes
// from the communicator (resident in shared memory where that is the back end). Segments start at
// multiples of 256 elements and a bucket's length is a multiple of 256 x world size; padding stays
// zero. Parameters keep their memory order (channels_last, say).
class GradientBuckets {
 public:
  // Where parameters lie: in memory of their own, or in the communicator's, from where other ranks
  // can take them without a copy.
  enum class ParameterMemory { kPrivate, kCommunicator };
  // Collective: rank 0's plan is the one that counts, and all ranks must have the same parameters
  // (checked by the caller). `comm` outlives the buckets.
  GradientBuckets(Communicator& comm, const NamedParameters& parameters, const BucketPlan& plan,
                  ParameterMemory memory = ParameterMemory::kPrivate);

  [[nodiscard]] std::vector<FlatBucket>& flat() noexcept { return buckets_; }
  [[nodiscard]] const std::vector<FlatBucket>& flat() const noexcept { return buckets_; }
  // The parameters of bucket b, aligned with its segments.
  [[nodiscard]] const std::vector<at::Tensor>& parameters(size_t bucket) const {
    return parameters_[bucket];
  }
  void zero_grad();
  [[nodiscard]] bool parameters_are_finite() const;

 private:
  std::vector<std::unique_ptr<CommBuffer>> memory_;
  std::vector<FlatBucket> buckets_;
  std::vector<std::vector<at::Tensor>> parameters_;
};
}  // namespace trireme
