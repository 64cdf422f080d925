#pragma once
#include <memory>
#include <vector>

#include "trainer/optim/optimizer.h"

// The optimizers behind make_optimizer(). `ranges` has one entry a bucket.
namespace trireme::internal {

// Loops over float* (elementwise_kernels.h), or LibTorch's operations on whole ranges: host memory
// takes the first, every other device the second.
enum class ComputePath { kHostLoops, kTensorOps };

// adamw, adam, sgd, lion: each element for itself, so any ranges do.
[[nodiscard]] std::unique_ptr<Optimizer> make_elementwise_optimizer(
    const OptimOptions& options, std::vector<FlatBucket>& buckets,
    const std::vector<FlatRange>& ranges, ComputePath path);

// lamb, lars: flat state and norms of whole tensors.
[[nodiscard]] std::unique_ptr<Optimizer> make_layerwise_optimizer(
    const OptimOptions& options, std::vector<FlatBucket>& buckets,
    const std::vector<FlatRange>& ranges);

// adafactor: second moments by row and column of each tensor.
[[nodiscard]] std::unique_ptr<Optimizer> make_adafactor(const OptimOptions& options,
                                                        std::vector<FlatBucket>& buckets,
                                                        const std::vector<FlatRange>& ranges);
}  // namespace trireme::internal
