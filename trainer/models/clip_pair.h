#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace trireme {

// CLIP's image and text encoders with their projections into one space (Radford et al., 2021), for
// inference in float32. Local; use from one thread.
class ClipPair {
 public:
  // Either a transformers folder with a whole CLIPModel and its tokenizer, or a diffusers folder
  // with image_encoder/ (CLIPVisionModelWithProjection), text_encoder/
  // (CLIPTextModelWithProjection) and tokenizer/. Throws InputError.
  static std::unique_ptr<ClipPair> load(const std::filesystem::path& folder);
  virtual ~ClipPair() = default;

  // images: (N, 3, H, W) uint8: shorter side to the encoder's size by antialiased bicubic
  // interpolation, centre crop, CLIP's mean and spread. Result: (N, P), unit vectors.
  [[nodiscard]] virtual at::Tensor embed_images(const at::Tensor& images) = 0;
  // (N, P), unit vectors.
  [[nodiscard]] virtual at::Tensor embed_texts(const std::vector<std::string>& texts) = 0;

  virtual void to_device(const std::string& device) = 0;
};
}  // namespace trireme
