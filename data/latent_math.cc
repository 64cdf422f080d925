#include "data/latent_math.h"

#include <algorithm>
#include <cstdint>

#include "core/error.h"
#include "core/half.h"
#include "core/vector_math.h"

namespace trireme {
namespace {
constexpr size_t kBlock = 32;  // A constant trip count, so that loops vectorise.

[[gnu::always_inline]] inline float posterior(float mean, float log_variance, float normal) {
  const float clamped = std::min(std::max(log_variance, -30.0F), 20.0F);
  return mean + static_cast<float>(vector_math::exp(0.5 * static_cast<double>(clamped))) * normal;
}

[[gnu::always_inline]] inline bool shift_and_scale_here(std::span<float> values, float shift,
                                                        float scale) noexcept {
  uint32_t found = 0;
  const auto apply = [&](float& value) {
    value = (value - shift) * scale;
    return is_not_finite(value);
  };
  for (; values.size() >= kBlock; values = values.subspan(kBlock)) {
    uint32_t bad = 0;
    for (size_t i = 0; i < kBlock; ++i) bad |= apply(values[i]);
    found |= bad;
  }
  for (float& value : values) found |= apply(value);
  return found == 0;
}

#if defined(__x86_64__)
[[gnu::target("avx2")]] bool shift_and_scale_avx2(std::span<float> values, float shift,
                                                  float scale) noexcept {
  return shift_and_scale_here(values, shift, scale);
}
#endif
}  // namespace

void sample_posterior(std::span<const float> mean, std::span<const float> log_variance,
                      std::span<const float> normals, std::span<float> out) noexcept {
  size_t i = 0;
  for (; i + kBlock <= out.size(); i += kBlock) {
    float block[kBlock];
    for (size_t j = 0; j < kBlock; ++j) {
      block[j] = posterior(mean[i + j], log_variance[i + j], normals[i + j]);
    }
    std::copy_n(block, kBlock, out.begin() + static_cast<std::ptrdiff_t>(i));
  }
  for (; i < out.size(); ++i) out[i] = posterior(mean[i], log_variance[i], normals[i]);
}

bool shift_and_scale(std::span<float> values, float shift, float scale) noexcept {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return shift_and_scale_avx2(values, shift, scale);
#endif
  return shift_and_scale_here(values, shift, scale);
}

LatentShape cropped_shape(const LatentShape& shape, int64_t side) {
  if (side == 0) return shape;
  check(side <= shape.height && side <= shape.width, "a crop within the latent");
  return {.channels = shape.channels, .height = side, .width = side};
}

void flip_width(const LatentShape& shape, std::span<float> latents) noexcept {
  const auto width = static_cast<size_t>(shape.width);
  for (size_t row = 0; row + width <= latents.size(); row += width) {
    std::ranges::reverse(latents.subspan(row, width));
  }
}
}  // namespace trireme
