#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/optim/optimizer.h"

namespace trireme {

// Sums that have the same bits in any order: each summand, a non-negative double between 2^-312 and
// 2^312 that is a multiple of 2^-312, is cut into digits of 24 bits, and digits of equal weight are
// added as whole numbers in double, without rounding for 2^29 summands in all (Kulisch's long
// accumulator; cf. Demmel and Nguyen, "Parallel Reproducible Summation", 2015). So a sum over
// ranges, ranks or threads is the sum of their digits. What is not finite makes digits NaN.
inline constexpr int kNumDigits = 26;

class ExactSum {
 public:
  void add(double value) noexcept;
  void add(const ExactSum& other) noexcept;
  [[nodiscard]] const std::array<double, kNumDigits>& digits() const noexcept { return digits_; }
  [[nodiscard]] double value() const noexcept;

 private:
  std::array<double, kNumDigits> digits_{};
};

// The digits of each sum of `summands` (n) float64. (kNumDigits) float64, on the same device.
[[nodiscard]] at::Tensor digits_of(const at::Tensor& summands);
// The sum that digits stand for. 0-d, float64, on the same device, the same bits for the same
// digits.
[[nodiscard]] at::Tensor value_of_digits(const at::Tensor& digits);

// Digits of the sum of squares of what the ranges hold of the gradients, from blocks of 256
// elements that are summed in double: added over ranks whose ranges make up the buckets they are
// those of the whole, whatever the ranges. (kNumDigits) float64 on the gradients' device.
// REQUIRES: ranges begin at multiples of 256.
[[nodiscard]] at::Tensor squares_digits(const std::vector<FlatBucket>& buckets,
                                        const std::vector<FlatRange>& ranges);
}  // namespace trireme
