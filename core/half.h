#pragma once
#include <bit>
#include <cstdint>
#include <span>

namespace trireme {

// IEEE 754 binary16 values, given by their bits, to float. Exact, subnormals, infinities and NaN
// included. REQUIRES: equal sizes, no overlap.
void half_to_float(std::span<const uint16_t> in, std::span<float> out) noexcept;

// 1 where `value` is infinite or NaN, else 0; by its bits, so that loops vectorise.
[[gnu::always_inline]] inline uint32_t is_not_finite(float value) noexcept {
  constexpr uint32_t kInfinity = 0x7f800000U;
  return (std::bit_cast<uint32_t>(value) & kInfinity) == kInfinity ? 1U : 0U;
}

// Whether no value is infinite or NaN.
[[nodiscard]] bool all_finite(std::span<const float> values) noexcept;
}  // namespace trireme
