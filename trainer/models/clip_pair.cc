#include "trainer/models/clip_pair.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "trainer/models/clip_layers.h"
#include "trainer/models/clip_text.h"
#include "trainer/models/config_reader.h"
#include "trainer/models/json_file.h"
#include "trainer/models/pretrained_folder.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr std::array<float, 3> kMean = {0.48145466F, 0.4578275F, 0.40821073F};
constexpr std::array<float, 3> kSpread = {0.26862954F, 0.26130258F, 0.27577711F};

struct VisionConfig {
  ClipLayerOptions layer;
  int64_t num_hidden_layers = 12;
  int64_t projection_dim = 512;
  int64_t image_size = 224;
  int64_t patch_size = 32;
};

// Keys that change nothing in the forward pass are not asked for.
VisionConfig parse_vision_config(const Json& json, const fs::path& file) {
  ConfigReader reader(json, file);
  VisionConfig config;
  config.layer.mask = ClipMask::kNone;
  config.layer.hidden_size = reader.integer("hidden_size", 768, 1, 16384);
  config.layer.intermediate_size = reader.integer("intermediate_size", 3072, 1, 65536);
  config.layer.num_attention_heads = reader.integer("num_attention_heads", 12, 1, 16384);
  config.layer.layer_norm_eps = reader.number("layer_norm_eps", 1e-5, 0.0, 1.0);
  config.num_hidden_layers = reader.integer("num_hidden_layers", 12, 1, 256);
  config.projection_dim = reader.integer("projection_dim", 512, 1, 16384);
  config.image_size = reader.integer("image_size", 224, 1, 4096);
  config.patch_size = reader.integer("patch_size", 32, 1, config.image_size);
  const std::string act = reader.text("hidden_act", "quick_gelu");
  if (act != "quick_gelu" && act != "gelu") {
    reader.fail("hidden_act", "only quick_gelu and gelu can be represented");
  }
  config.layer.hidden_act = act == "gelu" ? ClipGelu::kExact : ClipGelu::kQuick;
  if (config.layer.hidden_size % config.layer.num_attention_heads != 0) {
    reader.fail("num_attention_heads", "it does not divide hidden_size");
  }
  if (reader.integer("num_channels", 3, 1, 1024) != 3) {
    reader.fail("num_channels", "only pictures of 3 channels can be read");
  }
  return config;
}

at::Tensor unit(const at::Tensor& x) { return x / x.norm(2, 1, /*keepdim=*/true); }

// transformers' CLIPVisionModelWithProjection.
class VisionModel {
 public:
  VisionModel(const VisionConfig& config, const fs::path& weights)
      : config_(config),
        pre_norm_(scope() / "pre_layrnorm", config.layer.hidden_size, config.layer.layer_norm_eps),
        post_norm_(scope() / "post_layernorm", config.layer.hidden_size,
                   config.layer.layer_norm_eps),
        projection_(scope() / "visual_projection", config.layer.hidden_size, config.projection_dim,
                    Bias::kNone) {
    const int64_t width = config.layer.hidden_size;
    const int64_t side = config.image_size / config.patch_size;
    const auto embeddings = scope() / "embeddings";
    class_embedding_ = embeddings.add("class_embedding", {width}, {});
    patch_weight_ = (embeddings / "patch_embedding")
                        .add("weight", {width, 3, config.patch_size, config.patch_size}, {});
    position_embedding_ =
        (embeddings / "position_embedding").add("weight", {side * side + 1, width}, {});
    for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
      layers_.emplace_back(scope() / "encoder" / "layers" / i, config.layer);
    }
    read_frozen_parameters(SafetensorsReader(weights), current_name, parameters_);
  }

  at::Tensor embed(const at::Tensor& images) const {
    at::Tensor x = at::conv2d(prepare(images), patch_weight_, {}, config_.patch_size);
    x = x.flatten(2).transpose(1, 2);  // (N, patches, D)
    x = at::cat({class_embedding_.expand({x.size(0), 1, -1}), x}, 1) + position_embedding_;
    x = pre_norm_(x);
    for (const auto& layer : layers_) x = layer(x);
    return unit(projection_(post_norm_(x.select(1, 0))));  // (N, P)
  }

  void to_device(const std::string& device) {
    move_parameters(parameters_, device);
    device_ = at::Device(device);
  }

 private:
  ParameterScope scope() { return ParameterScope(parameters_); }

  static std::string current_name(const std::string& stored) {
    constexpr std::string_view kPrefix = "vision_model.";
    const std::string name = stored.starts_with(kPrefix) ? stored.substr(kPrefix.size()) : stored;
    if (name == "embeddings.position_ids" || name == "logit_scale") return "";
    return name.starts_with("text_model.") || name.starts_with("text_projection.") ? "" : name;
  }

  // (N, 3, H, W) uint8 -> (N, 3, image_size, image_size)
  at::Tensor prepare(const at::Tensor& images) const {
    const int64_t size = config_.image_size;
    at::Tensor x = images.to(device_).to(at::kFloat);
    const int64_t shorter = std::min(x.size(2), x.size(3));
    const std::array<int64_t, 2> scaled = {x.size(2) * size / shorter, x.size(3) * size / shorter};
    x = at::_upsample_bicubic2d_aa(x, scaled, /*align_corners=*/false).round().clamp(0, 255);
    x = x.narrow(2, (scaled[0] - size) / 2, size).narrow(3, (scaled[1] - size) / 2, size);
    const auto channels = [&](const std::array<float, 3>& values) {
      return at::tensor(values, x.options()).view({1, 3, 1, 1});
    };
    return (x / 255 - channels(kMean)) / channels(kSpread);
  }

  VisionConfig config_;
  std::vector<NamedParameter> parameters_;
  LayerNorm pre_norm_;
  LayerNorm post_norm_;
  Linear projection_;
  at::Tensor class_embedding_;     // (D)
  at::Tensor patch_weight_;        // (D, 3, patch, patch)
  at::Tensor position_embedding_;  // (1 + patches, D)
  std::vector<ClipLayer> layers_;
  at::Device device_ = at::kCPU;
};

class ClipPairImpl final : public ClipPair {
 public:
  ClipPairImpl(std::unique_ptr<VisionModel> vision, std::unique_ptr<ClipTextModel> text,
               std::unique_ptr<ClipTokenizer> tokenizer)
      : vision_(std::move(vision)), text_(std::move(text)), tokenizer_(std::move(tokenizer)) {}

  at::Tensor embed_images(const at::Tensor& images) override {
    const at::NoGradGuard no_grad;
    return vision_->embed(images);
  }

  at::Tensor embed_texts(const std::vector<std::string>& texts) override {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> ids;
    for (const auto& text : texts) ids.push_back(torch::tensor(tokenizer_->encode(text)));
    return unit(text_->forward(at::stack(ids)).pooled);
  }

  void to_device(const std::string& device) override {
    vision_->to_device(device);
    text_->to_device(device);
  }

 private:
  std::unique_ptr<VisionModel> vision_;
  std::unique_ptr<ClipTextModel> text_;
  std::unique_ptr<ClipTokenizer> tokenizer_;
};

std::unique_ptr<ClipPair> load_whole(const fs::path& folder, const Json& json,
                                     const fs::path& file) {
  for (const char* part : {"vision_config", "text_config"}) {
    if (!json.contains(part) || !json.at(part).is_object()) {
      throw InputError(file.string() + " has no object '" + part +
                       "', which a CLIPModel's config has. Give another scores.clip.");
    }
  }
  VisionConfig vision = parse_vision_config(json.at("vision_config"), file);
  ClipTextConfig text = parse_clip_text_config(json.at("text_config"), file);
  ConfigReader reader(json, file);
  vision.projection_dim = reader.integer("projection_dim", 512, 1, 16384);
  text.projection_dim = vision.projection_dim;
  const fs::path weights = find_weights_file(folder, "model");
  return std::make_unique<ClipPairImpl>(std::make_unique<VisionModel>(vision, weights),
                                        ClipTextModel::load_projected(text, weights),
                                        ClipTokenizer::load(folder));
}
}  // namespace

std::unique_ptr<ClipPair> ClipPair::load(const fs::path& folder) {
  const fs::path whole = folder / "config.json";
  std::error_code ignored;
  if (fs::exists(whole, ignored)) {
    return load_whole(folder, read_json_object(whole, "CLIP config"), whole);
  }
  const fs::path vision_folder = find_part_folder(folder, "image_encoder", "config.json");
  const fs::path vision_file = vision_folder / "config.json";
  const VisionConfig vision =
      parse_vision_config(read_json_object(vision_file, "image encoder config"), vision_file);
  const fs::path text_folder = find_part_folder(folder, "text_encoder", "config.json");
  const fs::path text_file = text_folder / "config.json";
  const ClipTextConfig text =
      parse_clip_text_config(read_json_object(text_file, "text encoder config"), text_file);
  return std::make_unique<ClipPairImpl>(
      std::make_unique<VisionModel>(vision, find_weights_file(vision_folder, "model")),
      ClipTextModel::load_projected(text, find_weights_file(text_folder, "model")),
      ClipTokenizer::load(folder));
}
}  // namespace trireme
