#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "data/latent_batch.h"
#include "trainer/config.h"
#include "trainer/models/autoencoder_kl.h"
#include "trainer/models/clip_pair.h"
#include "trainer/models/inception_v3.h"

namespace trireme {

[[nodiscard]] bool has_metric(const ScoresOptions& options, std::string_view name);

// Latents (N, C, H, W), averaged over cells of a grid of at most 8 x 8: (N, C * cells).
[[nodiscard]] at::Tensor latent_features(const at::Tensor& latents);

// What the scores of a picture are computed from, as one row of float32: Inception's features, the
// latent's, the CLIP score; each only where a metric needs it.
class FeatureRows {
 public:
  // Loads the networks that options.metrics need. `vae` is a diffusers folder, or empty where no
  // picture is to be decoded. Throws InputError and UsageError.
  FeatureRows(const ScoresOptions& options, const std::filesystem::path& vae,
              const std::string& device);

  // The latent part's width for latents of that shape.
  void set_latent_shape(const LatentShape& shape);

  struct Part {
    int64_t first = 0;
    int64_t width = 0;
  };
  [[nodiscard]] Part inception() const noexcept { return {0, inception_width_}; }
  [[nodiscard]] Part latent() const noexcept { return {inception_width_, latent_width_}; }
  [[nodiscard]] Part clip() const noexcept {
    return {inception_width_ + latent_width_, clip_ ? 1 : 0};
  }
  // A generated picture's row has all parts, a reference's not the CLIP score.
  [[nodiscard]] int64_t width() const noexcept { return reference_width() + (clip_ ? 1 : 0); }
  [[nodiscard]] int64_t reference_width() const noexcept {
    return inception_width_ + latent_width_;
  }

  // Scaled latents (N, C, H, W) -> (N, reference_width()), on the CPU. With `captions`, one each,
  // (N, width()).
  [[nodiscard]] at::Tensor of_latents(const at::Tensor& latents);
  [[nodiscard]] at::Tensor of_latents(const at::Tensor& latents,
                                      const std::vector<std::string>& captions);
  // Pixels (N, 3, H, W) uint8 -> (N, reference_width()).
  [[nodiscard]] at::Tensor of_pixels(const at::Tensor& pixels);

  // What made the numbers, for keys of stored ones.
  [[nodiscard]] std::string description() const;
  [[nodiscard]] int64_t pixels_per_latent() const;  // Of a side. REQUIRES: a VAE.

 private:
  [[nodiscard]] at::Tensor clip_scores(const at::Tensor& pixels,
                                       const std::vector<std::string>& captions);

  std::string device_;
  InceptionResize resize_;
  bool needs_latents_;
  std::unique_ptr<AutoencoderKL> vae_;
  std::unique_ptr<InceptionV3> inception_;
  std::unique_ptr<ClipPair> clip_;
  int64_t inception_width_ = 0;
  int64_t latent_width_ = 0;
};
}  // namespace trireme
