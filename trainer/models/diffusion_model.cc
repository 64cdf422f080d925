#include "trainer/models/diffusion_model.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "trainer/models/json_file.h"
#include "trainer/models/layers.h"
#include "trainer/models/pretrained_folder.h"
#include "trainer/models/safetensors.h"
#include "trainer/models/unet.h"
#include "trainer/models/unet_config.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

struct ModelFiles {
  fs::path config;
  fs::path weights;  // A .safetensors or an index of shards.
};

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// The weights of a model folder, in diffusers' names; half precision only where nothing else is.
fs::path find_weights(const fs::path& folder) {
  for (const auto* name :
       {"diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json",
        "diffusion_pytorch_model.fp16.safetensors",
        "diffusion_pytorch_model.safetensors.index.fp16.json",
        "diffusion_pytorch_model.fp16.safetensors.index.json"}) {
    if (is_there(folder / name)) return folder / name;
  }
  const bool pickled = is_there(folder / "diffusion_pytorch_model.bin");
  throw InputError(
      "The model folder " + folder.string() + " holds no diffusion_pytorch_model.safetensors" +
      (pickled ? " but a pickled .bin, which is not read; load it in diffusers and save "
                 "it with safe_serialization=True."
               : "; give a folder that diffusers' save_pretrained wrote."));
}

ModelFiles find_files(const fs::path& weights) {
  if (!is_there(weights)) {
    throw InputError("The model " + weights.string() +
                     " does not exist; give a diffusers folder or a .safetensors file with its "
                     "config.json beside it in model.weights.");
  }
  std::error_code ignored;
  if (!fs::is_directory(weights, ignored)) {
    const fs::path config = weights.parent_path() / "config.json";
    if (!is_there(config)) {
      throw InputError("The weights file " + weights.string() + " has no config.json beside it (" +
                       config.string() + "); put the model's config there.");
    }
    return {config, weights};
  }
  if (is_there(weights / "unet" / "config.json")) {
    return {weights / "unet" / "config.json", find_weights(weights / "unet")};
  }
  if (is_there(weights / "config.json")) return {weights / "config.json", find_weights(weights)};
  if (is_there(weights / "transformer")) {
    throw InputError("The model folder " + weights.string() +
                     " holds a transformer, which is not supported yet; use a model with a unet "
                     "folder (Stable Diffusion 1.x or 2.x).");
  }
  throw InputError("The model folder " + weights.string() +
                   " holds neither config.json nor unet/config.json; give a folder that diffusers' "
                   "save_pretrained wrote.");
}

BlankModel make_blank(const fs::path& config_file, double dropout) {
  auto json = read_json_object(config_file, "model config");
  UNetConfig config = parse_unet_config(json, config_file);
  if (dropout > 0.0) config.dropout = dropout;
  if (!json.contains("_class_name")) json["_class_name"] = "UNet2DConditionModel";
  // diffusers cannot load null here, and what stands here does not matter without cross-attention.
  const auto width = json.find("cross_attention_dim");
  if (width != json.end() && width->is_null()) json.erase(width);
  return make_blank_unet(config, json.dump(2) + "\n");
}

void check_tensors(const SafetensorsReader& reader, const std::vector<NamedParameter>& parameters,
                   const ModelFiles& files) {
  std::vector<std::string> missing;
  std::vector<std::string> misshapen;
  std::vector<std::string> surplus;
  std::set<std::string> known;
  for (const auto& [name, tensor, init] : parameters) {
    known.insert(name);
    const auto found = reader.entries().find(name);
    if (found == reader.entries().end()) {
      missing.push_back(name);
    } else if (tensor.sizes() != at::IntArrayRef(found->second.shape)) {
      misshapen.push_back(name + " " + shape_text(found->second.shape) + " instead of " +
                          shape_text(tensor.sizes()));
    } else if (!at::isFloatingType(found->second.dtype)) {
      misshapen.push_back(name + " of " + at::toString(found->second.dtype) + " numbers");
    }
  }
  for (const auto& [name, entry] : reader.entries()) {
    if (!known.contains(name)) surplus.push_back(name);
  }
  std::string problem;
  if (!missing.empty()) problem += "; missing: " + list_some(missing);
  if (!misshapen.empty()) problem += "; of another shape: " + list_some(misshapen);
  if (!surplus.empty()) problem += "; surplus: " + list_some(surplus);
  if (problem.empty()) return;
  throw InputError("The weights " + files.weights.string() + " do not fit the model of " +
                   files.config.string() + problem + ". Use weights and config of one model.");
}

void read_tensors(const SafetensorsReader& reader, const std::vector<NamedParameter>& parameters,
                  const ModelFiles& files) {
  const at::NoGradGuard no_grad;
  for (const auto& parameter : parameters) {
    at::Tensor target = parameter.tensor;
    target.copy_(reader.read(parameter.name));
    // A sum is cheap and finite unless an element is not (or, at worst, it overflows).
    if (!std::isfinite(target.sum(at::kDouble).item<double>())) {
      throw InputError("The weights " + files.weights.string() +
                       " hold numbers that are not finite, "
                       "in tensor " +
                       parameter.name +
                       "; the file is damaged or its training "
                       "diverged. Use other weights.");
    }
  }
}
}  // namespace

std::unique_ptr<DiffusionModel> make_model(const fs::path& config_json, double dropout,
                                           uint64_t seed) {
  BlankModel blank = make_blank(config_json, dropout);
  initialize_parameters(blank.parameters, seed);
  return std::move(blank.model);
}

std::unique_ptr<DiffusionModel> load_model(const fs::path& weights, double dropout) {
  const ModelFiles files = find_files(weights);
  const SafetensorsReader reader(files.weights);
  BlankModel blank = make_blank(files.config, dropout);
  check_tensors(reader, blank.parameters, files);
  read_tensors(reader, blank.parameters, files);
  return std::move(blank.model);
}

std::vector<fs::path> model_weights_files(const fs::path& weights) {
  return SafetensorsReader(find_files(weights).weights).files();
}

void save_model_folder(const fs::path& folder, const WeightsLayout& layout,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  NamedTensors floats;
  for (const auto& [name, tensor] : tensors)
    floats.emplace_back(layout.prefix + name, tensor.detach().to(at::kFloat));
  write_safetensors(folder / layout.file, floats, layout.metadata);
  for (const auto& [name, text] : layout.texts) write_text_file_atomically(folder / name, text);
}

int64_t DiffusionModel::num_elements() const {
  int64_t count = 0;
  for (const auto& [name, tensor] : all_parameters()) count += tensor.numel();
  return count;
}

void DiffusionModel::set_adapter_weight(double weight) {
  throw UsageError("there is no adapter to weigh (weight " + std::to_string(weight) +
                   "): the run trained the weights themselves. Leave --lora-weight away.");
}

WeightsLayout DiffusionModel::layout() const {
  return {.folder = folder_name(), .texts = {{"config.json", config_json()}}};
}

void DiffusionModel::load(const fs::path& folder) {
  const at::NoGradGuard no_grad;
  const WeightsLayout place = layout();
  const SafetensorsReader reader(folder / place.file);
  for (const auto& [name, tensor] : named_parameters()) {
    at::Tensor target = tensor;
    const at::Tensor stored = reader.read(place.prefix + name);
    if (stored.sizes() != target.sizes()) {
      throw InputError(reader.files().front().string() + ": '" + place.prefix + name +
                       "' has shape " + shape_text(stored.sizes()) + ", the model's is " +
                       shape_text(target.sizes()) +
                       ". It was written with another configuration; use the one it belongs to.");
    }
    target.copy_(stored);
  }
}
}  // namespace trireme
