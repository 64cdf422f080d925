#pragma once
#include <cstdint>
#include <span>

namespace trireme {

// IEEE 754 binary16 values, given by their bits, to float. Exact, subnormals, infinities and NaN
// included. REQUIRES: equal sizes, no overlap.
void half_to_float(std::span<const uint16_t> in, std::span<float> out) noexcept;

// Whether no value is infinite or NaN.
[[nodiscard]] bool all_finite(std::span<const float> values) noexcept;
}  // namespace trireme
