#include "trainer/adapters/kohya.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <string>

#include "core/error.h"
#include "trainer/adapters/lora.h"
#include "trainer/models/safetensors.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr std::string_view kDown = ".lora_A.weight";
constexpr std::string_view kUp = ".lora_B.weight";
constexpr std::string_view kUnet = "unet.";

// "unet.mid_block.attn1.to_q" -> "lora_unet_mid_block_attn1_to_q"
std::string kohya_module(std::string_view module) {
  std::string name(module.substr(kUnet.size()));
  std::ranges::replace(name, '.', '_');
  return "lora_unet_" + name;
}

std::string number_text(double value) {
  char buffer[32];
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr};
}

// What tools that read such files look for: docs/exports.md.
std::map<std::string, std::string> metadata(const SafetensorsReader& reader, int64_t rank,
                                            double alpha) {
  std::map<std::string, std::string> result = {{"format", "pt"},
                                               {"ss_network_module", "networks.lora"},
                                               {"ss_network_dim", std::to_string(rank)},
                                               {"ss_network_alpha", number_text(alpha)},
                                               {"ss_network_args", "{}"}};
  for (const auto& [name, entry] : reader.entries()) {
    // Text of Stable Diffusion 2 is 1,024 wide, of 1 768.
    if (name.find(".attn2.to_k.lora_A") == name.npos &&
        name.find(".attn2.to_v.lora_A") == name.npos)
      continue;
    const bool is_v2 = entry.shape.at(1) == 1024;
    result["ss_v2"] = is_v2 ? "True" : "False";
    if (is_v2 || entry.shape.at(1) == 768) {
      result["ss_base_model_version"] = is_v2 ? "sd_v2" : "sd_v1";
    }
  }
  return result;
}
}  // namespace

void write_kohya_lora(const std::filesystem::path& folder, const AdapterOptions& options,
                      const std::filesystem::path& file) {
  const SafetensorsReader reader(folder / kLoraWeightsFile);
  const double alpha = lora_scale(options) * static_cast<double>(options.rank);
  NamedTensors tensors;
  for (const auto& [name, entry] : reader.entries()) {
    const bool is_down = name.ends_with(kDown);
    if ((!is_down && !name.ends_with(kUp)) || !name.starts_with(kUnet)) {
      throw InputError(reader.files().front().string() + ": '" + name +
                       "' is not a tensor of a UNet's LoRA. Export the checkpoint of a run.");
    }
    const std::string module = kohya_module(name.substr(0, name.size() - kDown.size()));
    tensors.emplace_back(module + (is_down ? ".lora_down.weight" : ".lora_up.weight"),
                         reader.read(name));
    if (is_down) tensors.emplace_back(module + ".alpha", torch::full({}, alpha, torch::kFloat));
  }
  write_safetensors(file, tensors, metadata(reader, options.rank, alpha));
}
}  // namespace trireme
