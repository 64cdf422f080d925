#include "trainer/models/autoencoder_kl_config.h"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "trainer/models/config_reader.h"

namespace trireme {
namespace {
constexpr int64_t kMaxBlocks = 8;
constexpr int64_t kMaxChannels = 4096;
constexpr int64_t kMaxLayers = 16;

void require_blocks(ConfigReader& reader, std::string_view key, std::string_view kind,
                    size_t count) {
  const auto blocks = reader.texts(key, {std::string(kind)});
  for (const auto& block : blocks) {
    if (block != kind && block != "UNetRes" + std::string(kind)) {
      reader.fail(key, "only " + std::string(kind) + " can be represented");
    }
  }
  if (blocks.size() != count) reader.fail(key, "expected as many blocks as block_out_channels");
}

Activation activation(ConfigReader& reader) {
  std::string name = reader.text("act_fn", "silu");
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
  if (name == "silu" || name == "swish") return Activation::kSilu;
  if (name == "mish") return Activation::kMish;
  if (name == "gelu") return Activation::kGelu;
  if (name == "relu") return Activation::kRelu;
  reader.fail("act_fn", "expected silu, swish, mish, gelu or relu");
}

AutoencoderKLConfig::Part part(ConfigReader& reader, std::string_view key) {
  return reader.boolean(key, true) ? AutoencoderKLConfig::Part::kPresent
                                   : AutoencoderKLConfig::Part::kAbsent;
}
}  // namespace

AutoencoderKLConfig parse_autoencoder_kl_config(const nlohmann::json& json,
                                                const std::filesystem::path& file) {
  ConfigReader reader(json, file);
  if (reader.text("_class_name", "AutoencoderKL") != "AutoencoderKL") {
    reader.fail("_class_name", "only an AutoencoderKL can be read here");
  }
  AutoencoderKLConfig config;
  config.in_channels = reader.integer("in_channels", 3, 1, 64);
  config.out_channels = reader.integer("out_channels", 3, 1, 64);
  config.latent_channels = reader.integer("latent_channels", 4, 1, 256);
  config.block_out_channels = reader.integers("block_out_channels", {64}, 1, kMaxChannels);
  const size_t num_blocks = config.block_out_channels.size();
  if (num_blocks == 0 || num_blocks > kMaxBlocks) {
    reader.fail("block_out_channels", "expected 1 to 8 numbers");
  }
  require_blocks(reader, "down_block_types", "DownEncoderBlock2D", num_blocks);
  require_blocks(reader, "up_block_types", "UpDecoderBlock2D", num_blocks);
  config.layers_per_block = reader.integer("layers_per_block", 1, 1, kMaxLayers);
  config.norm_num_groups = reader.integer("norm_num_groups", 32, 1, kMaxChannels);
  for (const int64_t channels : config.block_out_channels) {
    if (channels % config.norm_num_groups != 0) {
      reader.fail("norm_num_groups", "it does not divide every number of block_out_channels");
    }
  }
  config.act_fn = activation(reader);
  config.scaling_factor = reader.number("scaling_factor", 0.18215, 1e-9, 1e9);
  if (reader.has("shift_factor")) config.shift_factor = reader.number("shift_factor", 0, -1e9, 1e9);
  for (const auto* key : {"latents_mean", "latents_std"}) {
    if (reader.has(key)) {
      reader.fail(key, "a latent mean and deviation for each channel cannot be represented");
    }
  }
  config.quant_conv = part(reader, "use_quant_conv");
  config.post_quant_conv = part(reader, "use_post_quant_conv");
  config.mid_block_attention = part(reader, "mid_block_add_attention");
  reader.ignore("sample_size");   // Of tiling, which is not done.
  reader.ignore("force_upcast");  // Computes in float32 anyway.
  reader.finish();
  return config;
}
}  // namespace trireme
