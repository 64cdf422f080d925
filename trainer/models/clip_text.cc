#include "trainer/models/clip_text.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "trainer/models/clip_layers.h"
#include "trainer/models/clip_text_config.h"
#include "trainer/models/json_file.h"
#include "trainer/models/layers.h"
#include "trainer/models/pretrained_folder.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
using Pooled = ClipTextConfig::Pooled;

class ClipTextModelImpl final : public ClipTextModel {
 public:
  explicit ClipTextModelImpl(const ClipTextConfig& config) : config_(config) {
    const ParameterScope root(parameters_);
    const auto embeddings = root / "embeddings";
    token_embedding_ =
        (embeddings / "token_embedding").add("weight", {config.vocab_size, config.hidden_size}, {});
    position_embedding_ =
        (embeddings / "position_embedding")
            .add("weight", {config.max_position_embeddings, config.hidden_size}, {});
    for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
      layers_.emplace_back(root / "encoder" / "layers" / i,
                           ClipLayerOptions{.hidden_size = config.hidden_size,
                                            .intermediate_size = config.intermediate_size,
                                            .num_attention_heads = config.num_attention_heads,
                                            .layer_norm_eps = config.layer_norm_eps,
                                            .hidden_act = config.hidden_act,
                                            .mask = ClipMask::kCausal});
    }
    final_layer_norm_.emplace(root / "final_layer_norm", config.hidden_size, config.layer_norm_eps);
    if (config.pooled == Pooled::kProjected) {
      text_projection_.emplace(root / "text_projection", config.hidden_size, config.projection_dim,
                               Bias::kNone);
    }
  }

  void read(const std::filesystem::path& weights) {
    const SafetensorsReader reader(weights);
    const auto naming = [this](const std::string& stored) { return current_name(stored); };
    read_frozen_parameters(reader, naming, parameters_);
    files_ = reader.files();
  }

  Output forward(const at::Tensor& token_ids) override {
    const at::NoGradGuard no_grad;
    check_ids(token_ids);
    const at::Tensor ids = token_ids.to(device_);  // (N, L)
    const int64_t length = ids.size(1);
    at::Tensor x = at::embedding(token_embedding_, ids) + position_embedding_.narrow(0, 0, length);
    for (const auto& layer : layers_) x = layer(x);
    x = (*final_layer_norm_)(x);  // (N, L, D)

    // Configs of before transformers 4.32 say 2 and mean the highest id in the text.
    const at::Tensor mark =
        config_.eos_token_id == 2 ? ids : (ids == config_.eos_token_id).to(at::kInt);
    const at::Tensor rows = at::arange(ids.size(0), ids.options());
    at::Tensor pooled = x.index({rows, mark.argmax(1)});  // (N, D)
    if (text_projection_) pooled = (*text_projection_)(pooled);
    return {x, pooled};
  }

  int64_t hidden_size() const noexcept override { return config_.hidden_size; }
  int64_t num_layers() const noexcept override { return config_.num_hidden_layers; }
  int64_t max_position_embeddings() const noexcept override {
    return config_.max_position_embeddings;
  }
  std::string weights_sha256() const override { return sha256_of_weights(files_); }

  void to_device(const std::string& device) override {
    move_parameters(parameters_, device);
    device_ = at::Device(device);
  }

 private:
  // transformers 5 dropped the prefix `text_model.`; a file may hold more than this model uses,
  // such as a whole CLIPModel.
  std::string current_name(const std::string& stored) const {
    constexpr std::string_view kPrefix = "text_model.";
    std::string name = stored.starts_with(kPrefix) ? stored.substr(kPrefix.size()) : stored;
    if (name == "embeddings.position_ids" || name == "logit_scale") return "";
    if (name.starts_with("vision_model.") || name.starts_with("visual_projection.")) return "";
    if (name == "text_projection.weight" && config_.pooled == Pooled::kHidden) return "";
    return name;
  }

  void check_ids(const at::Tensor& ids) const {
    check(ids.dim() == 2 && ids.scalar_type() == at::kLong && ids.numel() > 0,
          "token ids have shape (N, L) and are int64");
    if (ids.size(1) > config_.max_position_embeddings) {
      throw InputError("A text of " + std::to_string(ids.size(1)) +
                       " tokens is longer than the text encoder's max_position_embeddings = " +
                       std::to_string(config_.max_position_embeddings) +
                       ". Use the tokenizer of the same model.");
    }
    const auto max = ids.max().item<int64_t>();
    if (max >= config_.vocab_size || ids.min().item<int64_t>() < 0) {
      throw InputError("The tokenizer made the id " + std::to_string(max) +
                       ", but the text encoder's vocab_size is " +
                       std::to_string(config_.vocab_size) +
                       ". Use the tokenizer of the same model.");
    }
  }

  ClipTextConfig config_;
  std::vector<NamedParameter> parameters_;
  at::Tensor token_embedding_;     // (vocab, D)
  at::Tensor position_embedding_;  // (max length, D)
  std::vector<ClipLayer> layers_;
  std::optional<LayerNorm> final_layer_norm_;
  std::optional<Linear> text_projection_;
  std::vector<std::filesystem::path> files_;
  at::Device device_ = at::kCPU;
};
}  // namespace

std::unique_ptr<ClipTextModel> ClipTextModel::load_projected(ClipTextConfig config,
                                                             const std::filesystem::path& weights) {
  config.pooled = Pooled::kProjected;
  auto model = std::make_unique<ClipTextModelImpl>(config);
  model->read(weights);
  return model;
}

std::unique_ptr<ClipTextModel> ClipTextModel::load(const std::filesystem::path& folder) {
  const auto part = find_part_folder(folder, "text_encoder", "config.json");
  const auto config_file = part / "config.json";
  const auto json = read_json_object(config_file, "text encoder config");
  auto model = std::make_unique<ClipTextModelImpl>(parse_clip_text_config(json, config_file));
  model->read(find_weights_file(part, "model"));
  return model;
}
}  // namespace trireme
