#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include <ATen/core/Tensor.h>

namespace trireme {

// diffusers' AutoencoderKL for inference, in float32. Local; encode_moments() and decode() may be
// called from several threads at once.
class AutoencoderKL {
 public:
  // A diffusers folder with vae/, or the vae folder itself. Throws InputError. Old attention names
  // (query, key, value, proj_attn) are read too.
  static std::unique_ptr<AutoencoderKL> load(const std::filesystem::path& folder);
  virtual ~AutoencoderKL() = default;

  // images: (N, 3, H, W) in [-1, 1] -> moments (N, 2C, H/f, W/f): mean, then log-variance.
  [[nodiscard]] virtual at::Tensor encode_moments(const at::Tensor& images) = 0;
  // latents: (N, C, h, w) as stored (unscaled) -> images (N, 3, h*f, w*f), about [-1, 1].
  [[nodiscard]] virtual at::Tensor decode(const at::Tensor& latents) = 0;

  [[nodiscard]] virtual int64_t latent_channels() const noexcept = 0;
  [[nodiscard]] virtual int64_t downscale_factor() const noexcept = 0;
  [[nodiscard]] virtual double scaling_factor() const noexcept = 0;
  [[nodiscard]] virtual double shift_factor() const noexcept = 0;
  [[nodiscard]] virtual std::string weights_sha256() const = 0;  // Of the weights file(s).
  virtual void to_device(const std::string& device) = 0;
};
}  // namespace trireme
