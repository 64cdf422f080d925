#include "core/half.h"

#include <bit>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace trireme {
namespace {
constexpr size_t kBlock = 64;  // A constant trip count, so that loops vectorise.

float convert(uint16_t half) noexcept {
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

[[gnu::always_inline]] inline bool all_finite_here(std::span<const float> values) noexcept {
  uint32_t found = 0;
  while (values.size() >= kBlock) {
    uint32_t bad = 0;
    for (size_t i = 0; i < kBlock; ++i) bad |= is_not_finite(values[i]);
    found |= bad;
    values = values.subspan(kBlock);
  }
  for (const float value : values) found |= is_not_finite(value);
  return found == 0;
}

#if defined(__x86_64__)
// As many as whole vectors take; returns how many. The instruction ignores flush-to-zero modes.
[[gnu::target("avx,f16c")]] size_t convert_f16c(std::span<const uint16_t> in, float* out) noexcept {
  size_t i = 0;
  for (; i + 8 <= in.size(); i += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in.data() + i));
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(halves));
  }
  return i;
}
[[gnu::target("avx2")]] bool all_finite_avx2(std::span<const float> values) noexcept {
  return all_finite_here(values);
}
#endif
}  // namespace

void half_to_float(std::span<const uint16_t> in, std::span<float> out) noexcept {
  size_t i = 0;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("f16c")) i = convert_f16c(in, out.data());
#endif
  for (; i < in.size(); ++i) out[i] = convert(in[i]);
}

bool all_finite(std::span<const float> values) noexcept {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return all_finite_avx2(values);
#endif
  return all_finite_here(values);
}
}  // namespace trireme
