#include "trainer/reduce/gradient_buckets.h"

#include <cmath>

#include "core/error.h"
#include "trainer/reduce/grad_hooks.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr int64_t kSegmentAlignment = 256;

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

FlatSegment segment_of(const std::string& name, const at::Tensor& tensor, int64_t offset) {
  FlatSegment segment{.name = name,
                      .shape = tensor.sizes().vec(),
                      .offset = offset,
                      .num_elements = tensor.numel(),
                      .strides = {}};
  if (!tensor.is_contiguous() && tensor.is_non_overlapping_and_dense()) {
    segment.strides = tensor.strides().vec();
  }
  return segment;
}
}  // namespace

BucketPlan plan_buckets(const std::vector<size_t>& gradient_order,
                        const std::vector<int64_t>& num_elements, const BucketOptions& options) {
  BucketPlan plan;
  int64_t filled = 0;
  for (const size_t index : gradient_order) {
    const int64_t limit =
        plan.size() <= 1 ? options.first_bucket_elements : options.bucket_elements;
    const int64_t size = round_up(num_elements[index], kSegmentAlignment);
    if (plan.empty() || (filled > 0 && filled + size > limit)) {
      plan.emplace_back();
      filled = 0;
    }
    plan.back().push_back(index);
    filled += size;
  }
  return plan;
}

std::vector<size_t> measure_gradient_order(const NamedParameters& parameters,
                                           const std::function<void()>& backward) {
  std::vector<size_t> order;
  std::vector<bool> seen(parameters.size(), false);
  {
    GradHooks hooks;
    for (size_t i = 0; i < parameters.size(); ++i) {
      hooks.add(parameters[i].second, [&, i] {
        if (!seen[i]) order.push_back(i);
        seen[i] = true;
      });
    }
    backward();
  }
  for (size_t i = 0; i < parameters.size(); ++i) {
    parameters[i].second.mutable_grad() = at::Tensor();
    if (!seen[i]) {
      throw UsageError("parameter '" + parameters[i].first +
                       "' is to be trained but takes no part in the model's output (its gradient "
                       "never came). Freeze it with freeze.patterns = [\"^" +
                       parameters[i].first + "$\"].");
    }
  }
  return order;
}

GradientBuckets::GradientBuckets(Communicator& comm, const NamedParameters& parameters,
                                 const BucketPlan& plan, ParameterMemory memory) {
  const torch::NoGradGuard no_grad;
  for (const auto& members : plan) {
    FlatBucket bucket;
    int64_t offset = 0;
    for (const size_t index : members) {
      const auto& [name, tensor] = parameters[index];
      bucket.segments.push_back(segment_of(name, tensor, offset));
      offset += round_up(tensor.numel(), kSegmentAlignment);
    }
    const int64_t length = round_up(offset, kSegmentAlignment * comm.world_size());
    const auto options =
        torch::dtype(torch::kFloat32).device(parameters[members.front()].second.device());
    const auto from_communicator = [&] {
      memory_.push_back(comm.allocate(length, ScalarType::kFloat32));
      return torch::from_blob(memory_.back()->view().data, {length}, options);
    };
    bucket.grads = from_communicator();
    bucket.params = memory == ParameterMemory::kCommunicator ? from_communicator()
                                                             : torch::zeros({length}, options);
    parameters_.emplace_back();
    for (size_t i = 0; i < members.size(); ++i) {
      at::Tensor tensor = parameters[members[i]].second;
      const auto& segment = bucket.segments[i];
      const auto view = segment_view(bucket.params, segment.offset, segment);
      view.copy_(tensor.detach());
      tensor.set_data(view);
      tensor.mutable_grad() = segment_view(bucket.grads, segment.offset, segment);
      parameters_.back().push_back(tensor);
    }
    buckets_.push_back(std::move(bucket));
  }
}

void GradientBuckets::zero_grad() {
  for (auto& bucket : buckets_) bucket.grads.zero_();
}

bool GradientBuckets::parameters_are_finite() const {
  const torch::NoGradGuard no_grad;
  for (const auto& bucket : buckets_) {
    // NaN is passed on by both.
    const double least = bucket.params.min().item<double>();
    const double most = bucket.params.max().item<double>();
    if (!std::isfinite(least) || !std::isfinite(most)) return false;
  }
  return true;
}
}  // namespace trireme
