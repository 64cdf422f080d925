#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace trireme {

// What a network costs, in closed form from its configuration: nothing is built or run.

// A layer with parameters, or an operation without.
struct LayerCost {
  std::string name;                 // As diffusers names the module.
  std::vector<int64_t> parameters;  // Elements of each of its tensors that is trained.
  double macs = 0.0;                // Multiply-add pairs of the forward pass of one sample.
  double stored = 0.0;              // Elements that backward needs of it, for one sample.
  // kData: no gradient of its input is asked for, so backward takes one product and not two.
  enum class Input { kHidden, kData } input = Input::kHidden;
  // kFrozen: nor one of its weight.
  enum class Weight { kTrained, kFrozen } weight = Weight::kTrained;
  int64_t fan_in = 0;                // Inputs that make one output, in a product with a weight.
  std::vector<int64_t> frozen = {};  // Elements of the tensors that are there but not trained.
  // What computes its product: in float32 not at the same speed.
  enum class Kernel { kMatrix, kConvolution } kernel = Kernel::kMatrix;
  // Which of the parts that activation checkpointing computes again it is in; -1: in none.
  int block = -1;
  double block_input = 0.0;  // A block's first layer: elements that are kept for the block.
  [[nodiscard]] double backward_macs() const {
    return (input == Input::kHidden ? macs : 0.0) + (weight == Weight::kTrained ? macs : 0.0);
  }
};

struct NetworkCost {
  std::string class_name;         // "UNet2DConditionModel", …
  std::vector<LayerCost> layers;  // In the order of the forward pass.

  [[nodiscard]] int64_t num_parameters() const;  // Trained and frozen.
  [[nodiscard]] int64_t num_trained() const;
  [[nodiscard]] int64_t num_tensors() const;
  // As PyTorch's FlopCounterMode counts: two a multiply-add of matrix products and convolutions
  // (attention's too), nothing else.
  [[nodiscard]] double forward_flops() const;
  [[nodiscard]] double training_flops() const;    // Forward and backward.
  [[nodiscard]] double recomputed_flops() const;  // Of activation checkpointing.
  [[nodiscard]] double stored_elements() const;
  // With activation checkpointing: blocks' inputs, one block's activations, and what is in none.
  [[nodiscard]] double checkpointed_elements() const;
};

// One sample's inputs.
struct InputShape {
  int64_t height = 0;  // Of the latent.
  int64_t width = 0;
  int64_t text_tokens = 0;
};

// From a diffusers config.json of UNet2DConditionModel, DiTTransformer2DModel,
// SD3Transformer2DModel or FluxTransformer2DModel (whose latents are 2x2-packed: height and width
// are those before). The last three need not be trainable by this program. Throws InputError naming
// `file` and the key for another class or a value out of range.
[[nodiscard]] NetworkCost count_network(const nlohmann::json& config,
                                        const std::filesystem::path& file, const InputShape& input);

// The latent's height and width that the configuration's sample_size means, and the usual number of
// text tokens.
[[nodiscard]] InputShape default_input(const nlohmann::json& config);
}  // namespace trireme
