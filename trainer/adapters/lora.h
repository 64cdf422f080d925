#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "trainer/config.h"
#include "trainer/models/diffusion_model.h"

namespace trireme {

// The weights that an adapter was trained on and belongs to.
struct AdapterBase {
  std::string path;    // As the configuration names it.
  std::string sha256;  // Of its weights (docs/lora.md).
};

// Puts `base` to rest and adds to each of its layers that `options.targets` name the product of two
// small matrices (LoRA; Hu et al., 2021):
//
//   y = W x + b + weight * scale * B A dropout(x),   scale = alpha / rank,
//
// or with use_rslora alpha / sqrt(rank) (Kalajdzievski, 2023). A is (rank, in), for a convolution
// one of the layer's kernel, stride and padding to `rank` channels; B is (out, rank) or a 1x1
// convolution. A starts uniform in +-1/sqrt(fan in), as PEFT has it (Kaiming with a = sqrt 5), from
// Stream::kAdapterWeights by the layer's and the element's position; B starts at zero, so that
// training starts from the base itself. Dropout masks come from Stream::kAdapterDropout, keyed like
// the model's own.
//
// The result's named_parameters() are the As and Bs, "….to_q.lora_A.weight"; its layout is PEFT's
// (docs/lora.md). A target names a module if it is the module's name or the end of it after a dot.
// Throws UsageError for one that names none. Local.
[[nodiscard]] std::unique_ptr<DiffusionModel> add_lora(std::unique_ptr<DiffusionModel> base,
                                                       AdapterBase identity,
                                                       const AdapterOptions& options,
                                                       uint64_t seed);

// Whether the target names that module.
[[nodiscard]] bool is_named(const std::string& module, const std::string& target);

// alpha / rank, or alpha / sqrt(rank) with use_rslora.
[[nodiscard]] double lora_scale(const AdapterOptions& options);

// base.json of an adapter's folder. Throws InputError.
[[nodiscard]] AdapterBase read_adapter_base(const std::filesystem::path& folder);

// The weights file of an adapter's folder, under the name that diffusers looks for.
inline constexpr const char* kLoraWeightsFile = "pytorch_lora_weights.safetensors";
}  // namespace trireme
