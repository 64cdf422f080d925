#include "trainer/optim/exact_sum.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <mutex>

#include "core/error.h"
#include "trainer/optim/elementwise_kernels.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr int kDigitBits = 24;
constexpr int kLowestExponent = -13 * kDigitBits;
constexpr int64_t kBlock = 256;  // Part of what a gradient norm means: never change it.
constexpr int64_t kBlocksAThread = 512;

// 2^exponent for both signs: weight and inverse weight of each digit.
struct Weights {
  std::array<double, kNumDigits> of;
  std::array<double, kNumDigits> inverse;
};
constexpr double power_of_two(int exponent) {
  double value = 1.0;
  for (int i = 0; i < (exponent < 0 ? -exponent : exponent); ++i) value *= 2.0;
  return exponent < 0 ? 1.0 / value : value;
}
constexpr Weights make_weights() {
  Weights weights{};
  for (int j = 0; j < kNumDigits; ++j) {
    const int exponent = kLowestExponent + j * kDigitBits;
    weights.of[static_cast<size_t>(j)] = power_of_two(exponent);
    weights.inverse[static_cast<size_t>(j)] = power_of_two(-exponent);
  }
  return weights;
}
constexpr Weights kWeights = make_weights();

at::Tensor weights_tensor(const std::array<double, kNumDigits>& values, const at::Device& device) {
  const at::Tensor host =
      torch::from_blob(const_cast<double*>(values.data()), {kNumDigits}, torch::kDouble);
  // Page-locked, so that the host need not wait.
  return device.is_cpu() ? host : host.pin_memory().to(device, /*non_blocking=*/true);
}

ExactSum host_squares(const float* values, int64_t n) {
  ExactSum total;
  std::mutex mutex;
  at::parallel_for(0, (n + kBlock - 1) / kBlock, kBlocksAThread, [&](int64_t begin, int64_t end) {
    ExactSum part;
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kBlock;
      part.add(internal::block_sum_of_squares(values + first, std::min(kBlock, n - first)));
    }
    const std::lock_guard lock(mutex);
    total.add(part);
  });
  return total;
}

at::Tensor device_squares(const at::Tensor& values) {
  const int64_t whole = values.numel() / kBlock * kBlock;
  const auto squares = [](const at::Tensor& part) { return part.to(torch::kDouble).square(); };
  at::Tensor digits = digits_of(squares(values.narrow(0, 0, whole).view({-1, kBlock})).sum(1));
  if (whole < values.numel()) {
    digits +=
        digits_of(squares(values.narrow(0, whole, values.numel() - whole)).sum().reshape({1}));
  }
  return digits;
}
}  // namespace

void ExactSum::add(double value) noexcept {
  constexpr int kMantissaBits = std::numeric_limits<double>::digits - 1;
  constexpr uint64_t kHiddenBit = uint64_t{1} << kMantissaBits;
  const auto bits = std::bit_cast<uint64_t>(value);
  const auto exponent = static_cast<int>(bits >> kMantissaBits) & 0x7ff;
  if (exponent == 0x7ff) {
    digits_[0] = std::numeric_limits<double>::quiet_NaN();
    return;
  }
  // Of the mantissa's lowest bit, counted from the lowest digit's.
  const int position = exponent - 1075 - kLowestExponent;
  if (position <= -kMantissaBits - 1) return;  // Less than any digit counts; zero.
  const uint64_t mantissa = (bits & (kHiddenBit - 1)) | kHiddenBit;
  const int first = std::max(position, 0) / kDigitBits;
  auto rest = static_cast<unsigned __int128>(mantissa);
  rest = position < 0 ? rest >> -position : rest << (position % kDigitBits);
  for (int j = first; rest != 0; ++j, rest >>= kDigitBits) {
    constexpr auto kDigitMask = (unsigned{1} << kDigitBits) - 1;
    if (j == kNumDigits - 1) {
      digits_.back() += static_cast<double>(rest);
      return;
    }
    digits_[static_cast<size_t>(j)] +=
        static_cast<double>(static_cast<unsigned>(rest) & kDigitMask);
  }
}

void ExactSum::add(const ExactSum& other) noexcept {
  for (size_t j = 0; j < digits_.size(); ++j) digits_[j] += other.digits_[j];
}

double ExactSum::value() const noexcept {
  double sum = 0.0;
  for (size_t j = 0; j < digits_.size(); ++j) sum += digits_[j] * kWeights.of[j];
  return sum;
}

at::Tensor digits_of(const at::Tensor& summands) {
  const at::Tensor inverse = weights_tensor(kWeights.inverse, summands.device());
  // Whole multiples of each weight; taking those of the next one away leaves the digit.
  at::Tensor counts = (summands.unsqueeze(1) * inverse).floor_();  // (n, kNumDigits)
  counts.narrow(1, 0, kNumDigits - 1)
      .sub_(counts.narrow(1, 1, kNumDigits - 1).clone(), power_of_two(kDigitBits));
  return counts.sum(0);
}

at::Tensor value_of_digits(const at::Tensor& digits) {
  return (digits * weights_tensor(kWeights.of, digits.device())).sum();
}

at::Tensor squares_digits(const std::vector<FlatBucket>& buckets,
                          const std::vector<FlatRange>& ranges) {
  const torch::NoGradGuard no_grad;
  const bool on_host = buckets.empty() || buckets.front().grads.is_cpu();
  ExactSum total;
  at::Tensor device_total;
  for (size_t b = 0; b < buckets.size(); ++b) {
    const auto [first, last] = ranges[b];
    check(first % kBlock == 0, "a range begins at a block of the norm");
    const at::Tensor& grads = buckets[b].grads;
    if (on_host) {
      total.add(host_squares(grads.const_data_ptr<float>() + first, last - first));
      continue;
    }
    const at::Tensor part = device_squares(grads.narrow(0, first, last - first));
    device_total = device_total.defined() ? device_total.add_(part) : part;
  }
  if (!on_host) return device_total;
  at::Tensor digits = torch::empty({kNumDigits}, torch::kDouble);
  std::ranges::copy(total.digits(), digits.data_ptr<double>());
  return digits;
}

at::Tensor sum_of_squares(const std::vector<FlatBucket>& buckets) {
  std::vector<FlatRange> whole;
  for (const auto& bucket : buckets) whole.push_back({0, bucket.grads.numel()});
  return value_of_digits(squares_digits(buckets, whole));
}
}  // namespace trireme
