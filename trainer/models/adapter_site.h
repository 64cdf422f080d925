#pragma once
#include <array>
#include <cstdint>
#include <deque>
#include <string>

#include <ATen/core/Tensor.h>

namespace trireme {

// What an adapter adds to the output of a layer.
class LayerAdapter {
 public:
  virtual ~LayerAdapter() = default;
  // x: what the layer is given; result: of the layer's output's shape.
  [[nodiscard]] virtual at::Tensor operator()(const at::Tensor& x) const = 0;
};

// A linear or convolutional layer under its diffusers name ("….attn1.to_q"), and the adapter that
// it adds, if any. The layer points here, so a site stays where it is as long as its model lives.
struct AdapterSite {
  std::string name;
  at::Tensor weight;  // (out, in) or (out, in, kernel, kernel), the layer's own
  std::array<int64_t, 2> stride = {1, 1};
  std::array<int64_t, 2> padding = {0, 0};
  const LayerAdapter* adapter = nullptr;  // Outlives the forward passes in which it stands here.
};

using AdapterSites = std::deque<AdapterSite>;

// y, the output of a layer at `site` for input x, with what its adapter adds.
[[nodiscard]] at::Tensor with_adapter(const AdapterSite* site, const at::Tensor& x, at::Tensor y);
}  // namespace trireme
