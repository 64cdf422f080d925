#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "study/network_cost.h"

namespace trireme {

// Adds layers to a list. Sizes are of one sample: `rows` are positions (H x W, or tokens).
class CostBuilder {
 public:
  explicit CostBuilder(std::vector<LayerCost>& layers) : layers_(&layers) {}

  // Layers up to end_blocks(), or the next block, are computed again together where activations are
  // checkpointed, from `input_elements` that nothing else keeps.
  void begin_block(double input_elements) {
    block_ = ++num_blocks_;
    block_input_ = input_elements;
  }
  void end_blocks() { block_ = -1; }

  enum class Bias { kYes, kNo };
  void linear(std::string name, int64_t in, int64_t out, int64_t rows, Bias bias = Bias::kYes) {
    convolution(std::move(name), in, out, 1, rows, rows, bias);
    layers_->back().kernel = LayerCost::Kernel::kMatrix;
  }
  // `rows_in` and `rows_out` differ where it strides.
  void convolution(std::string name, int64_t in, int64_t out, int64_t kernel, int64_t rows_in,
                   int64_t rows_out, Bias bias = Bias::kYes) {
    LayerCost layer{.name = std::move(name), .parameters = {in * out * kernel * kernel}};
    if (bias == Bias::kYes) layer.parameters.push_back(out);
    layer.macs = product(in * kernel * kernel, out) * static_cast<double>(rows_out);
    layer.stored = product(in, rows_in);
    layer.fan_in = in * kernel * kernel;
    layer.kernel = LayerCost::Kernel::kConvolution;
    add(std::move(layer));
  }
  // The layer added last reads the sample's own data (latent, text, timestep).
  void reads_data() { layers_->back().input = LayerCost::Input::kData; }
  // Group or layer norm with scale and shift.
  void norm(std::string name, int64_t channels, int64_t rows) {
    add({std::move(name), {channels, channels}, 0.0, product(channels, rows)});
  }
  // Tensors without a product of their own: tables, scales of RMS norms.
  void table(std::string name, int64_t elements) { add({std::move(name), {elements}, 0.0, 0.0}); }
  // What an activation keeps of its input.
  void activation(std::string name, int64_t channels, int64_t rows) {
    add({std::move(name), {}, 0.0, product(channels, rows)});
  }
  // Softmax(Q K^T) V of all heads, `width` channels together; fused, so that no matrix of
  // `queries` x `keys` is kept.
  void attention(std::string name, int64_t width, int64_t queries, int64_t keys) {
    add({std::move(name),
         {},
         2.0 * product(width, queries) * static_cast<double>(keys),
         product(width, 2 * queries + 2 * keys)});
  }

 private:
  static double product(int64_t a, int64_t b) {
    return static_cast<double>(a) * static_cast<double>(b);
  }
  void add(LayerCost layer) {
    layer.block = block_;
    layer.block_input = std::exchange(block_input_, 0.0);
    layers_->push_back(std::move(layer));
  }

  std::vector<LayerCost>* layers_;
  int block_ = -1;
  int num_blocks_ = -1;
  double block_input_ = 0.0;
};
}  // namespace trireme
