#include "trainer/models/single_file.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "trainer/models/json_file.h"
#include "trainer/models/ldm_names.h"
#include "trainer/models/pretrained_folder.h"
#include "trainer/models/unet_config.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

void add_unet(const SingleFileParts& parts, NamedTensors& out) {
  const auto json = parse_json_object(parts.unet_config_json, "config.json", "model config");
  const UNetConfig config = parse_unet_config(json, "config.json");
  const int64_t layers = config.down_blocks.front().num_layers;
  const bool same = std::ranges::all_of(
      config.down_blocks, [&](const UNetBlockConfig& block) { return block.num_layers == layers; });
  if (!same) {
    throw UsageError(
        "--format single-file numbers the layers of all blocks alike, but this UNet's "
        "layers_per_block differs between blocks. Use --format diffusers.");
  }
  for (const auto& [name, tensor] : parts.unet) {
    const bool in_up_block = name.starts_with("up_blocks.");
    const bool has_attention =
        in_up_block &&
        config.up_blocks.at(std::stoul(name.substr(10))).kind == BlockKind::kCrossAttention;
    out.emplace_back(ldm_unet_name(name, {.layers_per_block = layers}, has_attention), tensor);
  }
}

void add_vae(const fs::path& folder, NamedTensors& out) {
  const auto json = read_json_object(folder / "config.json", "VAE config");
  const int64_t num_up_blocks = json.contains("up_block_types") && json["up_block_types"].is_array()
                                    ? static_cast<int64_t>(json["up_block_types"].size())
                                    : 1;
  const SafetensorsReader reader(find_weights_file(folder, "diffusion_pytorch_model"));
  for (const auto& [name, entry] : reader.entries()) {
    const std::string ldm = ldm_vae_name(name, num_up_blocks);
    at::Tensor tensor = reader.read(name);
    // Attention's linear layers are 1x1 convolutions there.
    if (ldm.find(".attn_1.") != ldm.npos && tensor.dim() == 2) {
      tensor = tensor.unsqueeze(2).unsqueeze(3);
    }
    out.emplace_back(ldm, tensor);
  }
}

// Transformers' names, with the prefix that older versions wrote and readers expect.
void add_clip(const SafetensorsReader& reader, NamedTensors& out) {
  for (const auto& [name, entry] : reader.entries()) {
    const std::string full = name.starts_with("text_model.") ? name : "text_model." + name;
    out.emplace_back("cond_stage_model.transformer." + full, reader.read(name));
  }
}

// OpenCLIP keeps query, key and value in one tensor.
void add_open_clip(const SafetensorsReader& reader, NamedTensors& out) {
  std::map<std::string, std::map<char, at::Tensor>> fused;
  for (const auto& [name, entry] : reader.entries()) {
    const std::string open_clip = open_clip_name(name);
    if (open_clip.empty()) continue;
    const size_t projection = name.find("self_attn.");
    if (open_clip.find(".in_proj_") != open_clip.npos) {
      fused[open_clip][name.at(projection + 10)] = reader.read(name);  // By 'q', 'k' or 'v'.
    } else {
      const at::Tensor tensor = reader.read(name);
      out.emplace_back(open_clip, open_clip.ends_with("text_projection") ? tensor.t() : tensor);
    }
  }
  for (const auto& [name, parts] : fused) {
    if (parts.size() != 3) {
      throw InputError(reader.files().front().string() +
                       " lacks a query, key or value projection of " + name +
                       ". Use a whole text encoder.");
    }
    out.emplace_back(name, torch::cat({parts.at('q'), parts.at('k'), parts.at('v')}));
  }
}

void add_text_encoder(const fs::path& folder, NamedTensors& out) {
  const auto json = read_json_object(folder / "config.json", "text encoder config");
  const SafetensorsReader reader(find_weights_file(folder, "model"));
  // Transformers' default is CLIP's own.
  if (json.value("hidden_act", nlohmann::json("quick_gelu")) == "gelu") {
    add_open_clip(reader, out);
  } else {
    add_clip(reader, out);
  }
}
}  // namespace

void write_single_file(const fs::path& file, const SingleFileParts& parts) {
  NamedTensors tensors;
  add_unet(parts, tensors);
  if (parts.vae) add_vae(*parts.vae, tensors);
  if (parts.text_encoder) add_text_encoder(*parts.text_encoder, tensors);
  write_safetensors(file, tensors);
}
}  // namespace trireme
