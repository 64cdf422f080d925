#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/models/diffusion_model.h"
#include "trainer/models/layers.h"

namespace trireme {

// What all layers of one adapter share: set before a forward pass.
struct LoraPass {
  std::optional<DropoutKey> dropout_key;  // Without it dropout is off.
  double weight = 1.0;
};

// The low-rank update of one layer: docs/lora.md. Local; the site and the pass outlive it.
class LoraLayer : public LayerAdapter {
 public:
  struct Shape {
    int64_t rank = 1;
    double scale = 1.0;
    double dropout = 0.0;
    uint32_t number = 0;  // Distinguishes this layer's dropout masks from other layers'.
  };
  // Adds its two parameters, not yet set, to `parameters` and itself to the site.
  LoraLayer(AdapterSite& site, Shape shape, const LoraPass& pass,
            std::vector<NamedParameter>& parameters);

  [[nodiscard]] at::Tensor operator()(const at::Tensor& x) const override;
  // weight * scale * B A in the shape of the layer's weight.
  [[nodiscard]] at::Tensor delta() const;
  [[nodiscard]] const std::string& name() const noexcept { return site_.name; }

 private:
  AdapterSite& site_;
  Shape shape_;
  const LoraPass& pass_;
  at::Tensor a_;  // (rank, in) or (rank, in, kernel, kernel)
  at::Tensor b_;  // (out, rank) or (out, rank, 1, 1)
};
}  // namespace trireme
