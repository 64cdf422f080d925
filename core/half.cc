#include "core/half.h"

#include <algorithm>
#include <bit>

namespace trireme {
namespace {
constexpr size_t kBlock = 64;  // A constant trip count, so that loops vectorise.

[[gnu::always_inline]] inline float convert(uint16_t half) noexcept {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fffU) << 13;
  const uint32_t exponent = magnitude & 0x0f800000U;
  // A subnormal gets an exponent, which a subtraction takes off again: no float is subnormal here,
  // so the result does not depend on the processor's flush-to-zero mode.
  const float subnormal =
      std::bit_cast<float>(magnitude + 0x38800000U) - std::bit_cast<float>(0x38800000U);
  const uint32_t normal = magnitude + (exponent == 0x0f800000U ? 0x70000000U : 0x38000000U);
  return std::bit_cast<float>((exponent == 0 ? std::bit_cast<uint32_t>(subnormal) : normal) | sign);
}

[[gnu::always_inline]] inline void convert_all(const uint16_t* in, float* out,
                                               size_t count) noexcept {
  for (; count >= kBlock; count -= kBlock, in += kBlock, out += kBlock) {
    float block[kBlock];
    for (size_t i = 0; i < kBlock; ++i) block[i] = convert(in[i]);
    std::copy_n(block, kBlock, out);
  }
  for (size_t i = 0; i < count; ++i) out[i] = convert(in[i]);
}

#if defined(__x86_64__)
[[gnu::target("avx2")]] void convert_avx2(const uint16_t* in, float* out, size_t count) noexcept {
  convert_all(in, out, count);
}
#endif
}  // namespace

void half_to_float(std::span<const uint16_t> in, std::span<float> out) noexcept {
  const size_t count = std::min(in.size(), out.size());
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return convert_avx2(in.data(), out.data(), count);
#endif
  convert_all(in.data(), out.data(), count);
}

bool all_finite(std::span<const float> values) noexcept {
  constexpr uint32_t kInfinity = 0x7f800000U;
  uint32_t found = 0;
  while (values.size() >= kBlock) {
    uint32_t bad = 0;
    for (size_t i = 0; i < kBlock; ++i) {
      bad |= (std::bit_cast<uint32_t>(values[i]) & kInfinity) == kInfinity ? 1U : 0U;
    }
    found |= bad;
    values = values.subspan(kBlock);
  }
  for (const float value : values) {
    found |= (std::bit_cast<uint32_t>(value) & kInfinity) == kInfinity ? 1U : 0U;
  }
  return found == 0;
}
}  // namespace trireme
