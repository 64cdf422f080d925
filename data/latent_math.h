#pragma once
#include <cstdint>
#include <span>

#include "data/latent_batch.h"

namespace trireme {

// out = mean + exp(clamp(log_variance, -30, 20) / 2) * normal. REQUIRES: equal sizes.
void sample_posterior(std::span<const float> mean, std::span<const float> log_variance,
                      std::span<const float> normals, std::span<float> out) noexcept;

// Replaces each value x by (x - shift) * scale. Whether all of them are finite then.
[[nodiscard]] bool shift_and_scale(std::span<float> values, float shift, float scale) noexcept;

// The shape of a square crop of `side`; `shape` itself where side is 0. REQUIRES: it fits.
[[nodiscard]] LatentShape cropped_shape(const LatentShape& shape, int64_t side);

// Mirrors each row: latents of `shape`, left to right.
void flip_width(const LatentShape& shape, std::span<float> latents) noexcept;
}  // namespace trireme
