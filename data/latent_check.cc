#include "data/latent_check.h"

#include <algorithm>
#include <span>
#include <vector>

namespace trireme {

int64_t check_latents(const LatentDataset& dataset, int64_t most, LatentCheckShare share) {
  const int64_t stride = std::max<int64_t>(dataset.num_samples() / most, 1);
  int64_t num_read = 0;
  std::vector<float> latent;
  std::vector<float> normals;  // Zeros: the posterior's mean.
  for (const ShapeClass& shape_class : dataset.classes()) {
    latent.resize(static_cast<size_t>(shape_class.shape.num_elements()));
    normals.assign(latent.size(), 0.0F);
    for (const auto& range : shape_class.ranges) {
      for (int64_t i = share.part * stride; i < range.count; i += share.num_parts * stride) {
        const int64_t sample = range.first + i;
        const bool moments = dataset.is_moments(sample);
        dataset.read_latent(sample, moments ? normals : std::span<const float>(), latent);
        ++num_read;
      }
    }
  }
  return num_read;
}
}  // namespace trireme
