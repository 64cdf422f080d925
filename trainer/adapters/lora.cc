#include "trainer/adapters/lora.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "trainer/adapters/lora_layer.h"
#include "trainer/models/json_file.h"
#include "trainer/models/pretrained_folder.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;
constexpr const char* kBaseFile = "base.json";

[[noreturn]] void throw_unmatched(const std::string& target, const AdapterSites& sites) {
  std::set<std::string> names;
  for (const auto& site : sites) {
    // "to_out.0" says more than "0".
    size_t dot = site.name.rfind('.');
    if (dot != std::string::npos &&
        site.name.find_first_not_of("0123456789", dot + 1) == site.name.npos)
      dot = dot == 0 ? site.name.npos : site.name.rfind('.', dot - 1);
    names.insert(dot == std::string::npos ? site.name : site.name.substr(dot + 1));
  }
  std::string known;
  for (const auto& name : names) known += (known.empty() ? "" : ", ") + name;
  throw UsageError("adapter.targets: '" + target +
                   "' is the end of no linear or convolutional layer's name in this model. Its "
                   "layers end with " +
                   known + ".");
}

class LoraModel : public DiffusionModel {
 public:
  LoraModel(std::unique_ptr<DiffusionModel> base, AdapterBase identity,
            const AdapterOptions& options, uint64_t seed);

  at::Tensor forward(const at::Tensor& latents, const at::Tensor& timesteps,
                     const Condition& condition,
                     const std::optional<DropoutKey>& dropout_key) override {
    pass_.dropout_key = dropout_key;
    return base_->forward(latents, timesteps, condition, dropout_key);
  }
  std::vector<std::pair<std::string, at::Tensor>> named_parameters() const override;
  std::vector<std::pair<std::string, at::Tensor>> merged_parameters() const override;
  std::vector<std::pair<std::string, at::Tensor>> all_parameters() const override;
  int64_t in_channels() const noexcept override { return base_->in_channels(); }
  int64_t out_channels() const noexcept override { return base_->out_channels(); }
  int64_t sample_size_multiple() const noexcept override { return base_->sample_size_multiple(); }
  int64_t cross_attention_dim() const noexcept override { return base_->cross_attention_dim(); }
  bool takes_class_labels() const noexcept override { return base_->takes_class_labels(); }
  int64_t num_class_labels() const noexcept override { return base_->num_class_labels(); }
  std::string config_json() const override { return base_->config_json(); }
  std::string resolved_config() const override { return base_->resolved_config(); }
  std::string folder_name() const override { return base_->folder_name(); }
  void to_device(const std::string& device) override {
    base_->to_device(device);
    move_parameters(parameters_, device);
  }
  void use_activation_checkpointing() override { base_->use_activation_checkpointing(); }
  AdapterSites* adapter_sites() override { return base_->adapter_sites(); }
  void set_adapter_weight(double weight) override { pass_.weight = weight; }
  WeightsLayout layout() const override;
  void load(const fs::path& folder) override;

 private:
  std::string metadata_json() const;

  std::unique_ptr<DiffusionModel> base_;
  AdapterBase identity_;
  AdapterOptions options_;
  LoraPass pass_;
  std::deque<LoraLayer> layers_;  // They stay where they are: sites point to them.
  std::vector<NamedParameter> parameters_;
};

LoraModel::LoraModel(std::unique_ptr<DiffusionModel> base, AdapterBase identity,
                     const AdapterOptions& options, uint64_t seed)
    : base_(std::move(base)), identity_(std::move(identity)), options_(options) {
  for (auto& [name, tensor] : base_->named_parameters()) tensor.set_requires_grad(false);
  AdapterSites* sites = base_->adapter_sites();
  check(sites != nullptr, "a model whose layers take an adapter");
  for (const auto& target : options.targets) {
    const bool is_known = std::ranges::any_of(
        *sites, [&](const AdapterSite& site) { return is_named(site.name, target); });
    if (!is_known) throw_unmatched(target, *sites);
  }
  uint32_t number = 0;  // Counts all sites, so that a layer's numbers do not depend on the targets.
  std::vector<uint32_t> numbers;
  for (auto& site : *sites) {
    const bool is_target = std::ranges::any_of(
        options.targets, [&](const auto& target) { return is_named(site.name, target); });
    if (is_target) {
      layers_.emplace_back(site,
                           LoraLayer::Shape{.rank = options.rank,
                                            .scale = lora_scale(options),
                                            .dropout = options.dropout,
                                            .number = number},
                           pass_, parameters_);
      numbers.push_back(number);
    }
    ++number;
  }
  for (size_t i = 0; i < numbers.size(); ++i) {
    initialize_parameter(parameters_[2 * i],
                         PositionRandom(seed, Stream::kAdapterWeights, 0, numbers[i]));
    initialize_parameter(parameters_[2 * i + 1],
                         PositionRandom(seed, Stream::kAdapterWeights, 1, numbers[i]));
  }
}

std::vector<std::pair<std::string, at::Tensor>> LoraModel::named_parameters() const {
  std::vector<std::pair<std::string, at::Tensor>> named;
  for (const auto& parameter : parameters_) named.emplace_back(parameter.name, parameter.tensor);
  return named;
}

std::vector<std::pair<std::string, at::Tensor>> LoraModel::merged_parameters() const {
  const at::NoGradGuard no_grad;
  std::map<std::string, const LoraLayer*> layers;
  for (const auto& layer : layers_) layers.emplace(layer.name() + ".weight", &layer);
  std::vector<std::pair<std::string, at::Tensor>> merged;
  for (const auto& [name, tensor] : base_->named_parameters()) {
    const auto layer = layers.find(name);
    merged.emplace_back(name,
                        layer == layers.end()
                            ? tensor.detach().clone()
                            : (tensor.to(at::kDouble) + layer->second->delta()).to(at::kFloat));
  }
  return merged;
}

std::vector<std::pair<std::string, at::Tensor>> LoraModel::all_parameters() const {
  auto all = base_->all_parameters();
  for (auto& own : named_parameters()) all.push_back(std::move(own));
  return all;
}

// A PEFT LoraConfig as diffusers stores it; without it diffusers takes alpha for the rank.
std::string LoraModel::metadata_json() const {
  const std::string prefix = folder_name() + ".";
  nlohmann::json modules = nlohmann::json::array();
  for (const auto& layer : layers_) modules.push_back(layer.name());
  nlohmann::json json = {{prefix + "r", options_.rank},
                         {prefix + "lora_alpha", options_.alpha},
                         {prefix + "lora_dropout", options_.dropout},
                         {prefix + "target_modules", modules}};
  if (options_.use_rslora) json[prefix + "use_rslora"] = true;
  return json.dump();
}

WeightsLayout LoraModel::layout() const {
  const nlohmann::json base = {{"path", identity_.path}, {"sha256", identity_.sha256}};
  return {.folder = "adapter",
          .file = kLoraWeightsFile,
          .prefix = folder_name() + ".",
          .metadata = {{"format", "pt"}, {"lora_adapter_metadata", metadata_json()}},
          .texts = {{kBaseFile, base.dump(2) + "\n"}}};
}

void LoraModel::load(const fs::path& folder) {
  const AdapterBase trained_on = read_adapter_base(folder);
  if (trained_on.sha256 != identity_.sha256) {
    throw InputError("the adapter in " + folder.string() + " was trained on the base " +
                     trained_on.path + " with SHA-256 " + trained_on.sha256 +
                     ", but the weights of " + identity_.path + " have " + identity_.sha256 +
                     ". Give the base it belongs to with --set model.weights=DIR.");
  }
  DiffusionModel::load(folder);
}
}  // namespace

bool is_named(const std::string& module, const std::string& target) {
  return module == target || module.ends_with("." + target);
}

double lora_scale(const AdapterOptions& options) {
  const auto rank = static_cast<double>(options.rank);
  return options.alpha / (options.use_rslora ? std::sqrt(rank) : rank);
}

AdapterBase read_adapter_base(const fs::path& folder) {
  const fs::path file = folder / kBaseFile;
  const auto json = read_json_object(file, "description of an adapter's base");
  const auto text = [&](const char* key) {
    if (json.contains(key) && json[key].is_string()) return json[key].get<std::string>();
    throw InputError(file.string() + " has no text '" + key +
                     "'. The adapter is damaged; use another checkpoint.");
  };
  return {.path = text("path"), .sha256 = text("sha256")};
}

std::unique_ptr<DiffusionModel> add_lora(std::unique_ptr<DiffusionModel> base, AdapterBase identity,
                                         const AdapterOptions& options, uint64_t seed) {
  return std::make_unique<LoraModel>(std::move(base), std::move(identity), options, seed);
}
}  // namespace trireme
