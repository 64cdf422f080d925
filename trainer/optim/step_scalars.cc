#include "trainer/optim/step_scalars.h"

#include "core/error.h"
#include "trainer/torch_api.h"

namespace trireme::internal {
StepScalars::StepScalars(const std::vector<FlatBucket>& buckets) : options_(torch::kFloat) {
  if (!buckets.empty()) options_ = options_.device(buckets.front().params.device());
}

void StepScalars::set(size_t group, const std::vector<double>& values) {
  if (groups_.size() <= group) groups_.resize(group + 1);
  auto& scalars = groups_[group];
  if (scalars.empty()) {
    for (size_t i = 0; i < values.size(); ++i) scalars.push_back(torch::empty({}, options_));
  }
  check(scalars.size() == values.size(), "as many numbers at every step");
  for (size_t i = 0; i < values.size(); ++i) scalars[i].fill_(values[i]);
}
}  // namespace trireme::internal
