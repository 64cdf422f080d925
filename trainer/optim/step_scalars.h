#pragma once
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/optim/optimizer.h"

namespace trireme::internal {

// By group, the numbers of an update that differ from step to step: the learning rate and what
// follows from it and the step. They lie in device memory and are set there in place, so that the
// host waits for nothing, and operations that read them, recorded once, stay right for later steps.
class StepScalars {
 public:
  explicit StepScalars(const std::vector<FlatBucket>& buckets);  // They say on which device.

  // As many values at every call for the group. Rounded to float32 here.
  void set(size_t group, const std::vector<double>& values);
  // In the order of set(). 0-d, float32.
  [[nodiscard]] const std::vector<at::Tensor>& of(size_t group) const { return groups_[group]; }

 private:
  at::TensorOptions options_;
  std::vector<std::vector<at::Tensor>> groups_;
};
}  // namespace trireme::internal
