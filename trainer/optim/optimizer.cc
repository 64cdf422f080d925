#include "trainer/optim/optimizer.h"

#include <string>
#include <utility>

#include "core/error.h"
#include "trainer/optim/optimizer_kinds.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
std::vector<FlatRange> complete_ranges(const std::vector<FlatBucket>& buckets,
                                       std::vector<FlatRange> ranges) {
  if (ranges.empty()) {
    for (const auto& bucket : buckets) ranges.push_back({0, bucket.params.numel()});
  }
  check(ranges.size() == buckets.size(), "one range a bucket");
  for (size_t b = 0; b < buckets.size(); ++b) {
    const auto& bucket = buckets[b];
    check(bucket.params.is_contiguous() && bucket.grads.is_contiguous() &&
              bucket.params.scalar_type() == torch::kFloat &&
              bucket.grads.scalar_type() == torch::kFloat &&
              bucket.params.numel() == bucket.grads.numel(),
          "flat float32 buckets");
    check(0 <= ranges[b].first && ranges[b].first <= ranges[b].last &&
              ranges[b].last <= bucket.params.numel(),
          "a range within its bucket");
    for (const auto& segment : bucket.segments) {
      check(segment.offset >= 0 && segment.offset + segment.num_elements <= bucket.params.numel(),
            "a segment within its bucket");
    }
  }
  return ranges;
}
}  // namespace

at::Tensor segment_view(const at::Tensor& flat, int64_t offset, const FlatSegment& segment) {
  const at::Tensor part = flat.narrow(0, offset, segment.num_elements);
  return segment.strides.empty() ? part.view(segment.shape)
                                 : part.as_strided(segment.shape, segment.strides);
}

at::Tensor in_memory_order(const at::Tensor& tensor, const FlatSegment& segment) {
  if (segment.strides.empty()) return tensor.contiguous().view({-1});
  at::Tensor ordered = at::empty_strided(segment.shape, segment.strides, tensor.options());
  return ordered.copy_(tensor).as_strided({segment.num_elements}, {1});
}

std::unique_ptr<Optimizer> make_optimizer(const OptimOptions& options,
                                          std::vector<FlatBucket>& buckets,
                                          std::vector<FlatRange> ranges) {
  ranges = complete_ranges(buckets, std::move(ranges));
  switch (options.name) {
    case OptimizerName::kLamb:
    case OptimizerName::kLars:
      return internal::make_layerwise_optimizer(options, buckets, ranges);
    case OptimizerName::kAdafactor:
      return internal::make_adafactor(options, buckets, ranges);
    default:
      break;
  }
  const bool on_host = buckets.empty() || buckets.front().params.is_cpu();
  return internal::make_elementwise_optimizer(
      options, buckets, ranges,
      on_host ? internal::ComputePath::kHostLoops : internal::ComputePath::kTensorOps);
}
}  // namespace trireme
