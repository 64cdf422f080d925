#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "launcher/inspect.h"
#include "trainer/models/autoencoder_kl.h"
#include "trainer/models/clip_text.h"
#include "trainer/models/diffusion_model.h"
#include "trainer/models/json_file.h"
#include "trainer/models/safetensors.h"
#include "trainer/models/unet_config.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

// Exponent bits all set: infinite or not a number.
template <typename Bits>
int64_t first_not_finite(const void* data, int64_t count, Bits exponent_mask) {
  const auto* bytes = static_cast<const std::byte*>(data);
  for (int64_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, bytes + static_cast<size_t>(i) * sizeof(Bits), sizeof(Bits));
    if ((bits & exponent_mask) == exponent_mask) return i;
  }
  return -1;
}

int64_t first_not_finite(const at::Tensor& tensor) {
  const void* data = tensor.data_ptr();
  const int64_t count = tensor.numel();
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return first_not_finite<uint64_t>(data, count, 0x7ff0000000000000U);
    case at::kFloat:
      return first_not_finite<uint32_t>(data, count, 0x7f800000U);
    case at::kHalf:
      return first_not_finite<uint16_t>(data, count, 0x7c00U);
    case at::kBFloat16:
      return first_not_finite<uint16_t>(data, count, 0x7f80U);
    default:
      return -1;
  }
}

void verify_tensors(const SafetensorsReader& reader, const fs::path& file) {
  for (const auto& [name, entry] : reader.entries()) {
    const int64_t bad = first_not_finite(reader.read(name));
    if (bad < 0) continue;
    throw InputError("the weights file " + file.string() + " holds a value that is not finite: " +
                     name + ", element " + std::to_string(bad) + ". Write it again.");
  }
}

// As safetensors spells it.
std::string name_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble:
      return "F64";
    case at::kFloat:
      return "F32";
    case at::kHalf:
      return "F16";
    case at::kBFloat16:
      return "BF16";
    case at::kLong:
      return "I64";
    case at::kInt:
      return "I32";
    default:
      return "other types";
  }
}

int64_t num_elements(const SafetensorsReader::Entry& entry) {
  int64_t count = 1;
  for (const int64_t size : entry.shape) count *= size;
  return count;
}

std::string summarise(const SafetensorsReader& reader) {
  std::map<std::string, int64_t> elements_by_dtype;
  uint64_t num_bytes = 0;
  for (const auto& [name, entry] : reader.entries()) {
    elements_by_dtype[name_of(entry.dtype)] += num_elements(entry);
    num_bytes += entry.size_bytes;
  }
  std::string text = format_plural(static_cast<int64_t>(reader.entries().size()), "tensor");
  for (const auto& [dtype, count] : elements_by_dtype) {
    text += ", " + format_count(count) + " values in " + dtype;
  }
  return text + ", " + format_bytes(num_bytes);
}

// The weights of a diffusers or transformers folder, as these libraries name them.
std::optional<fs::path> find_weights(const fs::path& folder) {
  constexpr std::array<std::string_view, 4> kNames = {
      "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json",
      "model.safetensors", "model.safetensors.index.json"};
  for (const auto name : kNames) {
    if (fs::exists(folder / name)) return folder / name;
  }
  return std::nullopt;
}

void report_unet(const nlohmann::json& json, const fs::path& config, ReportTable& table) {
  const UNetConfig unet = parse_unet_config(json, config);
  std::string channels;
  for (const auto& block : unet.down_blocks) {
    channels += (channels.empty() ? "" : ", ") + std::to_string(block.channels);
  }
  table.row("latent channels", std::to_string(unet.in_channels));
  table.row("block channels", channels);
  table.row("cross-attention width", unet.cross_attention_dim > 0
                                         ? std::to_string(unet.cross_attention_dim)
                                         : "none (takes no text)");
}

// Loads it as a run would, which compares names and shapes of all tensors.
void load_part(const fs::path& folder, std::string_view class_name) {
  if (class_name == "UNet2DConditionModel") {
    (void)load_model(folder, 0.0);
  } else if (class_name == "AutoencoderKL") {
    (void)AutoencoderKL::load(folder);
  } else if (class_name == "CLIPTextModel") {
    (void)ClipTextModel::load(folder);
  }
}

std::string class_of(const nlohmann::json& json) {
  if (json.contains("_class_name") && json["_class_name"].is_string()) return json["_class_name"];
  if (json.contains("architectures") && json["architectures"].is_array() &&
      !json["architectures"].empty() && json["architectures"].front().is_string()) {
    return json["architectures"].front();
  }
  return "a model of unnamed class";
}

void inspect_model_folder(const fs::path& folder, InspectDepth depth, ReportTable& table) {
  const fs::path config = folder / "config.json";
  const nlohmann::json json = read_json_object(config, "model config");
  const std::string class_name = class_of(json);
  table.row("class", one_line(class_name, 80));
  if (class_name == "UNet2DConditionModel") report_unet(json, config, table);
  const auto weights = find_weights(folder);
  if (!weights) {
    table.row("weights", "none");
    return;
  }
  const SafetensorsReader reader(*weights);
  table.row("weights", weights->filename().string() + ": " + summarise(reader));
  if (depth == InspectDepth::kHeaders) return;
  verify_tensors(reader, *weights);
  load_part(folder, class_name);
  table.row("verified", "every tensor was read; all values are finite");
}
// Without a model_index.json, as `export` leaves a lone network: every folder that holds a model.
void inspect_parts(const fs::path& folder, InspectDepth depth, ReportTable& table) {
  std::set<fs::path> parts;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (fs::exists(entry.path() / "config.json")) parts.insert(entry.path());
  }
  for (const auto& part : parts) {
    table.heading(part.filename().string());
    inspect_model_folder(part, depth, table);
  }
}
}  // namespace

void inspect_weights(const fs::path& file, InspectDepth depth, ReportTable& table) {
  const SafetensorsReader reader(file);
  table.heading("weights " + file.string());
  table.row("holds", summarise(reader));
  for (const auto& [name, value] : reader.metadata()) {
    table.row("metadata " + one_line(name, 40), one_line(value));
  }
  std::map<std::string, std::pair<int64_t, int64_t>> groups;  // Tensors and values by first name.
  for (const auto& [name, entry] : reader.entries()) {
    auto& group = groups[one_line(name.substr(0, name.find('.')), 60)];
    ++group.first;
    group.second += num_elements(entry);
  }
  for (const auto& [name, group] : groups) {
    if (groups.size() > 60) break;
    table.row(name,
              format_plural(group.first, "tensor") + ", " + format_count(group.second) + " values");
  }
  if (depth == InspectDepth::kHeaders) return;
  verify_tensors(reader, file);
  table.row("verified", "every tensor was read; all values are finite");
}

void inspect_diffusers_folder(const fs::path& folder, InspectDepth depth, ReportTable& table) {
  if (!fs::exists(folder / "model_index.json")) {
    const bool is_one_model = fs::exists(folder / "config.json");
    table.heading((is_one_model ? "model folder " : "diffusers folder ") + folder.string());
    is_one_model ? inspect_model_folder(folder, depth, table) : inspect_parts(folder, depth, table);
    return;
  }
  const nlohmann::json index = read_json_object(folder / "model_index.json", "model index");
  table.heading("diffusers folder " + folder.string());
  table.row("pipeline", one_line(class_of(index), 80));
  for (const auto& [part, value] : index.items()) {
    // Parts are [library, class]; a part that is left out is [null, null].
    if (part.starts_with("_") || !value.is_array() || value.size() != 2 || !value[1].is_string())
      continue;
    if (fs::path(part).filename() != part || part == "..") continue;
    const fs::path subfolder = folder / part;
    table.heading(part);
    if (fs::exists(subfolder / "config.json")) {
      inspect_model_folder(subfolder, depth, table);
      continue;
    }
    table.row("class", one_line(value[1].get<std::string>(), 80));
    if (!fs::is_directory(subfolder)) {
      throw InputError(
          "the diffusers folder " + folder.string() + " is not whole: model_index.json names " +
          part + ", but there is no such folder. Fetch it, or take it out of model_index.json.");
    }
    if (depth == InspectDepth::kEveryByte && part == "tokenizer" && value[1] == "CLIPTokenizer") {
      (void)ClipTokenizer::load(subfolder);
      table.row("verified", "the vocabulary and merges were read");
    }
  }
}
}  // namespace trireme
