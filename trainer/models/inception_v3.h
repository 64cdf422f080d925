#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include <ATen/core/Tensor.h>

#include "trainer/config.h"

namespace trireme {

// The Inception-v3 of the Fréchet inception distance (Szegedy et al., 2016; Heusel et al., 2017):
// TensorFlow's network of 2015-12-05 as pytorch-fid and torch-fidelity ported it, with average
// pools that leave out the padding and a maximum pool in the last block. For inference, in float32,
// with batch normalisation folded into the convolutions. Local; features() may be called from
// several threads at once.
class InceptionV3 {
 public:
  static constexpr int64_t kNumFeatures = 2048;

  // `weights`: a safetensors file with the names of either package (tools/convert_inception.py
  // makes it of their .pth). Throws InputError.
  static std::unique_ptr<InceptionV3> load(const std::filesystem::path& weights,
                                           InceptionResize resize);
  virtual ~InceptionV3() = default;

  // images: (N, 3, H, W) uint8, resized to 299 x 299 bilinearly: as pytorch-fid does it (pixels
  // have centres), or as torch-fidelity and TensorFlow 1 (they have corners). Result: (N, 2048),
  // the last average pool.
  [[nodiscard]] virtual at::Tensor features(const at::Tensor& images) = 0;

  [[nodiscard]] virtual std::string weights_sha256() const = 0;
  virtual void to_device(const std::string& device) = 0;
};
}  // namespace trireme
