#pragma once
#include <ATen/core/Tensor.h>

namespace trireme::internal {

// Sum of squares of a dense float32 tensor, in its memory order, in double. 0-d, float64, on the
// tensor's device. On the CPU over blocks of 4096 elements in order: the same bits at any number of
// threads.
[[nodiscard]] at::Tensor sum_of_squares_of(const at::Tensor& values);

// Its square root.
[[nodiscard]] at::Tensor norm_of(const at::Tensor& values);
}  // namespace trireme::internal
