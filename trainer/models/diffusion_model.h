#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/models/adapter_site.h"

namespace trireme {

// What conditions a forward pass. Undefined tensors are absent.
struct Condition {
  at::Tensor encoder_hidden_states;  // (N, L, D)
  at::Tensor class_labels;           // (N) int64
  at::Tensor pooled_prompt_embeds;   // (N, P)
  at::Tensor add_time_ids;           // (N, 6)
};

// The key of dropout masks: a mask is a function of seed, step, position of the micro-batch's first
// sample, and a layer's number; never of history or rank.
struct DropoutKey {
  uint64_t seed = 0;
  int64_t step = 0;
  int64_t first_position = 0;
};

// How the parameters of a model lie in a folder: the weights file, and small texts beside it.
struct WeightsLayout {
  std::string folder = {};  // In a checkpoint: "unet", "transformer" or "adapter".
  std::string file = "diffusion_pytorch_model.safetensors";
  std::string prefix = {};                                           // Of tensor names in the file.
  std::map<std::string, std::string> metadata = {{"format", "pt"}};  // In the file's header.
  std::vector<std::pair<std::string, std::string>> texts = {};       // File name -> text.
};

// A denoiser: predicts from noised latents, timestep and condition. Its parameters bear diffusers'
// names. With an adapter (trainer/adapters/lora.h) its parameters are the adapter's, and the
// network's are a frozen base. Local; use from one thread.
class DiffusionModel {
 public:
  virtual ~DiffusionModel() = default;

  // latents: (N, C, H, W); timesteps: (N) float or int64; result: (N, C_out, H, W).
  // With `dropout_key` the model is in training mode, without it dropout is off.
  [[nodiscard]] virtual at::Tensor forward(const at::Tensor& latents, const at::Tensor& timesteps,
                                           const Condition& condition,
                                           const std::optional<DropoutKey>& dropout_key) = 0;

  // What can be trained, and what a checkpoint holds: name and tensor in registration order. The
  // tensors are the live parameters: assigning `.set_data()` to them redirects the model to other
  // storage.
  [[nodiscard]] virtual std::vector<std::pair<std::string, at::Tensor>> named_parameters()
      const = 0;

  [[nodiscard]] virtual int64_t in_channels() const noexcept = 0;
  [[nodiscard]] virtual int64_t out_channels() const noexcept = 0;
  [[nodiscard]] virtual int64_t sample_size_multiple() const noexcept = 0;  // H and W divide by it.
  [[nodiscard]] virtual int64_t cross_attention_dim() const noexcept = 0;   // 0: takes no text.
  [[nodiscard]] virtual bool takes_class_labels() const noexcept = 0;
  [[nodiscard]] virtual int64_t num_class_labels() const noexcept { return 0; }  // 0: any number.
  // config.json as text, as loaded (unknown but representable keys kept), for saving.
  [[nodiscard]] virtual std::string config_json() const = 0;
  // The same as "key = value" lines with every default: equal for networks that compute the same of
  // equal parameters.
  [[nodiscard]] virtual std::string resolved_config() const = 0;
  [[nodiscard]] virtual std::string folder_name() const = 0;  // "unet" | "transformer"
  virtual void to_device(const std::string& device) = 0;
  // From now on a forward pass keeps the inputs of the network's blocks only, and backward computes
  // what lies inside once more: less memory, a third more time, the same bits.
  virtual void use_activation_checkpointing() {}

  // The layers that an adapter can add to; nullptr where there are none.
  [[nodiscard]] virtual AdapterSites* adapter_sites() { return nullptr; }
  // The parameters of a plain network that computes the same: named_parameters(), or with an
  // adapter copies of the base's with the adapter added, in float32.
  [[nodiscard]] virtual std::vector<std::pair<std::string, at::Tensor>> merged_parameters() const {
    return named_parameters();
  }
  // named_parameters(), and with an adapter before them those of the network that rests under it.
  [[nodiscard]] virtual std::vector<std::pair<std::string, at::Tensor>> all_parameters() const {
    return named_parameters();
  }
  [[nodiscard]] int64_t num_elements() const;  // Of all_parameters().
  // Multiplies what the adapter adds (1 at first). Throws UsageError where there is no adapter.
  virtual void set_adapter_weight(double weight);

  // How named_parameters() are stored.
  [[nodiscard]] virtual WeightsLayout layout() const;
  // Fills the parameters from a folder of that layout. Throws InputError naming file and tensor.
  virtual void load(const std::filesystem::path& folder);
};

// Builds the network of a diffusers config.json with random weights: torch's default
// initialisation, drawn from position (seed, Stream::kInitialWeights), equal on every rank. A value
// that cannot be represented exactly is an InputError naming file and key.
[[nodiscard]] std::unique_ptr<DiffusionModel> make_model(const std::filesystem::path& config_json,
                                                         double dropout, uint64_t seed);

// A diffusers folder (with or without unet/), or a .safetensors with its config.json beside it.
// Parameters are float32. Missing, surplus or misshapen tensors are InputErrors naming them.
[[nodiscard]] std::unique_ptr<DiffusionModel> load_model(const std::filesystem::path& weights,
                                                         double dropout);

// The weights file, or the shards of one, that load_model() reads.
[[nodiscard]] std::vector<std::filesystem::path> model_weights_files(
    const std::filesystem::path& weights);

// Writes the texts and the weights file (float32) of `layout` into `folder`, which exists.
// `tensors` holds the parameters under their names (live ones, or EMA's).
void save_model_folder(const std::filesystem::path& folder, const WeightsLayout& layout,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors);
}  // namespace trireme
