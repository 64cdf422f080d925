#include "trainer/reduce/checksum.h"

#include <bit>

#include "trainer/torch_api.h"

// The loop below is worth vectorising at -O2 as well.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif

namespace trireme {
namespace {
// Odd, and without pattern (2^64 divided by the golden ratio): powers tell buckets apart.
constexpr uint64_t kBucketFactor = 0x9e3779b97f4a7c15ULL;
constexpr int64_t kMask = 0xffffffff;

uint64_t host_checksum(const float* values, int64_t first, int64_t last) {
  uint64_t sum = 0;
  for (int64_t i = first; i < last; ++i) {
    const auto weight = static_cast<uint32_t>(2 * i + 1);
    sum += uint64_t{std::bit_cast<uint32_t>(values[i])} * weight;
  }
  return sum;
}

at::Tensor device_checksum(const at::Tensor& values, int64_t first, int64_t last) {
  const auto options = torch::dtype(torch::kLong).device(values.device());
  const at::Tensor bits = values.narrow(0, first, last - first).view(torch::kInt).to(torch::kLong);
  const at::Tensor weights = torch::arange(2 * first + 1, 2 * last + 1, 2, options);
  return (bits.bitwise_and(kMask) * weights.bitwise_and(kMask)).sum();
}
}  // namespace

at::Tensor checksum_of(const std::vector<FlatBucket>& buckets, const std::vector<FlatRange>& ranges,
                       Checksummed what) {
  const torch::NoGradGuard no_grad;
  uint64_t factor = kBucketFactor;
  uint64_t host_total = 0;
  at::Tensor device_total;
  for (size_t b = 0; b < buckets.size(); ++b, factor *= kBucketFactor) {
    const auto [first, last] = ranges[b];
    const at::Tensor& values =
        what == Checksummed::kParameters ? buckets[b].params : buckets[b].grads;
    if (values.is_cpu()) {
      host_total += factor * host_checksum(values.const_data_ptr<float>(), first, last);
      continue;
    }
    const at::Tensor part = device_checksum(values, first, last) * std::bit_cast<int64_t>(factor);
    device_total = device_total.defined() ? device_total.add_(part) : part;
  }
  if (device_total.defined()) return device_total;
  return torch::full({}, std::bit_cast<int64_t>(host_total), torch::kLong);
}

// Of a place the owner's value counts 3 - 2P times and those of the other P - 1 ranks twice each,
// once in all. At most one factor 2 is in either, so that a flipped bit (2^k with k < 32, times odd
// numbers) is never lost modulo 2^64.
at::Tensor replica_checksum(const std::vector<FlatBucket>& buckets,
                            const std::vector<FlatRange>& own, int num_ranks, Checksummed what) {
  std::vector<FlatRange> before;
  std::vector<FlatRange> after;
  for (size_t b = 0; b < buckets.size(); ++b) {
    before.push_back({0, own[b].first});
    after.push_back({own[b].last, buckets[b].params.numel()});
  }
  return checksum_of(buckets, own, what) * int64_t{3 - 2 * num_ranks} +
         (checksum_of(buckets, before, what) + checksum_of(buckets, after, what)) * int64_t{2};
}
}  // namespace trireme
