#pragma once
#include <ATen/core/Tensor.h>

#include "trainer/optim/optimizer.h"

namespace trireme::internal {

// Sum of squares of a dense float32 tensor, in its memory order, in double. 0-d, float64, on the
// tensor's device. On the CPU over blocks of 4096 elements in order: the same bits at any number of
// threads.
[[nodiscard]] at::Tensor sum_of_squares_of(const at::Tensor& values);

// Its square root.
[[nodiscard]] at::Tensor norm_of(const at::Tensor& values);

// Adds the sum of squares of a range of `values`, float32, to `total`, 0-d float64 on the same
// device. On the CPU nothing is allocated: a call costs no more than its pass over memory.
void add_sum_of_squares(const at::Tensor& values, FlatRange range, at::Tensor& total);
}  // namespace trireme::internal
