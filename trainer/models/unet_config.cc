#include "trainer/models/unet_config.h"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <ranges>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "trainer/models/config_reader.h"

namespace trireme {
namespace {
constexpr size_t kMaxBlocks = 16;
constexpr int64_t kMaxLayers = 64;
constexpr int64_t kMaxChannels = 16384;
constexpr int64_t kMaxWidth = 65536;

constexpr std::string_view kOnlyDefault =
    "this cannot be represented; only the default is supported";

void require_default(ConfigReader& reader, std::string_view key, const nlohmann::json& standard) {
  const auto* value = reader.find(key);
  if (value != nullptr && !value->is_null() && *value != standard) {
    reader.fail(key, std::string(kOnlyDefault));
  }
}

Activation activation(ConfigReader& reader, std::string_view key, std::string_view fallback) {
  std::string name = reader.text(key, fallback);
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
  if (name == "silu" || name == "swish") return Activation::kSilu;
  if (name == "mish") return Activation::kMish;
  if (name == "gelu") return Activation::kGelu;
  if (name == "relu") return Activation::kRelu;
  if (name.empty() && fallback.empty()) return Activation::kNone;
  reader.fail(key, "expected silu, swish, mish, gelu or relu");
}

// "CrossAttnDownBlock2D" with direction "Down".
BlockKind block_kind(ConfigReader& reader, std::string_view key, std::string_view name,
                     std::string_view direction) {
  if (name.starts_with("UNetRes")) name.remove_prefix(7);
  const std::string plain = std::string(direction) + "Block2D";
  if (name == plain) return BlockKind::kPlain;
  if (name == "CrossAttn" + plain) return BlockKind::kCrossAttention;
  reader.fail(key, "block '" + std::string(name) + "' cannot be represented; supported are " +
                       plain + " and CrossAttn" + plain);
}

std::vector<BlockKind> block_kinds(ConfigReader& reader, std::string_view key,
                                   const std::vector<std::string>& fallback,
                                   std::string_view direction) {
  std::vector<BlockKind> kinds;
  const auto names = reader.texts(key, fallback);
  if (names.empty() || names.size() > kMaxBlocks) reader.fail(key, "expected 1 to 16 blocks");
  for (const auto& name : names) kinds.push_back(block_kind(reader, key, name, direction));
  return kinds;
}

MidBlock mid_block(ConfigReader& reader) {
  const auto* value = reader.find("mid_block_type");
  if (value != nullptr && value->is_null()) return MidBlock::kNone;
  const auto name = reader.text("mid_block_type", "UNetMidBlock2DCrossAttn");
  if (name == "UNetMidBlock2DCrossAttn") return MidBlock::kCrossAttention;
  if (name == "UNetMidBlock2D") return MidBlock::kPlain;
  reader.fail(
      "mid_block_type",
      "it cannot be represented; supported are UNetMidBlock2DCrossAttn, UNetMidBlock2D, null");
}

std::vector<FirstAttention> first_attentions(ConfigReader& reader, size_t count) {
  const auto* value = reader.find("only_cross_attention");
  const auto kind = [](bool only) { return only ? FirstAttention::kText : FirstAttention::kSelf; };
  if (value == nullptr || !value->is_array()) {
    return std::vector<FirstAttention>(count, kind(reader.boolean("only_cross_attention", false)));
  }
  std::vector<FirstAttention> result;
  for (const auto& item : *value) {
    if (!item.is_boolean())
      reader.fail("only_cross_attention", "expected true or false for each block");
    result.push_back(kind(item.get<bool>()));
  }
  if (result.size() != count) {
    reader.fail("only_cross_attention", "expected one for each of the blocks");
  }
  return result;
}

// For each block the number of transformer layers after each of `resnets[i]` resnets: one number
// for all, one for each block, or a list for each.
std::vector<std::vector<int64_t>> transformer_layers(ConfigReader& reader, std::string_view key,
                                                     const std::vector<int64_t>& resnets) {
  std::vector<std::vector<int64_t>> result;
  const auto* value = reader.find(key);
  if (value == nullptr || !value->is_array()) {
    const int64_t all = reader.integer(key, 1, 1, kMaxLayers);
    for (const int64_t count : resnets) result.emplace_back(static_cast<size_t>(count), all);
    return result;
  }
  if (value->size() != resnets.size()) reader.fail(key, "expected one entry for each block");
  const auto layers = [&](const nlohmann::json& item) {
    const int64_t count =
        item.is_number_unsigned() && item.get<uint64_t>() <= kMaxLayers ? item.get<int64_t>() : 0;
    if (count < 1) reader.fail(key, "expected numbers of layers from 1 to 64");
    return count;
  };
  for (size_t i = 0; i < resnets.size(); ++i) {
    const auto& entry = (*value)[i];
    auto& block = result.emplace_back();
    if (!entry.is_array()) {
      block.assign(static_cast<size_t>(resnets[i]), layers(entry));
      continue;
    }
    for (const auto& item : entry) block.push_back(layers(item));
    if (block.size() < static_cast<size_t>(resnets[i])) {
      reader.fail(key, "a block has fewer entries than layers");
    }
  }
  return result;
}

// Keys that change nothing for the supported kinds of blocks, as diffusers computes them: some act
// in other block types only; `upcast_attention` not with scaled_dot_product_attention.
void accept_without_effect(ConfigReader& reader) {
  for (const auto* key : {"sample_size", "upcast_attention", "resnet_skip_time_act",
                          "resnet_out_scale_factor", "mid_block_only_cross_attention",
                          "cross_attention_norm", "addition_embed_type_num_heads"}) {
    reader.ignore(key);
  }
}

void refuse_unsupported(ConfigReader& reader) {
  require_default(reader, "dual_cross_attention", false);
  require_default(reader, "attention_type", "default");
  require_default(reader, "time_embedding_type", "positional");
  require_default(reader, "time_cond_proj_dim", nullptr);
  require_default(reader, "encoder_hid_dim", nullptr);
  require_default(reader, "encoder_hid_dim_type", nullptr);
  if (reader.has("num_attention_heads")) {
    reader.fail("num_attention_heads",
                "diffusers refuses this key; the number of heads stands in attention_head_dim");
  }
}

void parse_embeddings(ConfigReader& reader, UNetConfig& config, int64_t first_channels) {
  config.sinusoid_order =
      reader.boolean("flip_sin_to_cos", true) ? SinusoidOrder::kCosSin : SinusoidOrder::kSinCos;
  config.freq_shift = reader.number("freq_shift", 0.0, -1e6, 1e6);
  const int64_t half = first_channels / 2;
  if (config.freq_shift == static_cast<double>(half)) {
    reader.fail("freq_shift", "it must not be half of the first block's channels");
  }
  config.time_embed_dim = reader.has("time_embedding_dim")
                              ? reader.integer("time_embedding_dim", 0, 1, kMaxWidth)
                              : 4 * first_channels;
  config.timestep_post_act = activation(reader, "timestep_post_act", "");
  config.time_embedding_act_fn = activation(reader, "time_embedding_act_fn", "");
  const auto class_embed = reader.text("class_embed_type", "");
  if (class_embed == "timestep") {
    config.class_embedding = ClassEmbedding::kTimestep;
  } else if (!class_embed.empty()) {
    reader.fail("class_embed_type", "it cannot be represented; supported are null and timestep");
  }
  if (reader.has("num_class_embeds")) {
    config.num_class_embeds = reader.integer("num_class_embeds", 0, 1, int64_t{1} << 24);
    if (class_embed.empty()) config.class_embedding = ClassEmbedding::kTable;
  }
  if (reader.boolean("class_embeddings_concat", false)) {
    config.class_embedding_join = EmbeddingJoin::kConcatenate;
    if (config.class_embedding == ClassEmbedding::kNone) {
      reader.fail("class_embeddings_concat", "the model has no class embedding to concatenate");
    }
  }
  const auto addition = reader.text("addition_embed_type", "");
  if (addition == "text_time") {
    config.addition_time_embed_dim = reader.integer("addition_time_embed_dim", 0, 1, kMaxWidth);
    config.projection_class_embeddings_input_dim =
        reader.integer("projection_class_embeddings_input_dim", 0, 1, kMaxWidth);
    if (config.addition_time_embed_dim == 0 || config.projection_class_embeddings_input_dim == 0) {
      reader.fail("addition_embed_type",
                  "text_time also needs addition_time_embed_dim and "
                  "projection_class_embeddings_input_dim");
    }
  } else if (!addition.empty()) {
    reader.fail("addition_embed_type",
                "it cannot be represented; supported are null and text_time");
  } else {
    reader.ignore("addition_time_embed_dim");
    reader.ignore("projection_class_embeddings_input_dim");
  }
}

void parse_numbers(ConfigReader& reader, UNetConfig& config) {
  config.in_channels = reader.integer("in_channels", 4, 1, kMaxChannels);
  config.out_channels = reader.integer("out_channels", 4, 1, kMaxChannels);
  for (const auto& [key, kernel] : {std::pair("conv_in_kernel", &config.conv_in_kernel),
                                    std::pair("conv_out_kernel", &config.conv_out_kernel)}) {
    *kernel = reader.integer(key, 3, 1, 63);
    if (*kernel % 2 == 0) reader.fail(key, "an even kernel changes the size of the latents");
  }
  if (reader.boolean("center_input_sample", false)) config.input_range = InputRange::kCentered;
  config.mid_block_scale_factor = reader.number("mid_block_scale_factor", 1.0, 1e-6, 1e6);
  config.downsample_padding = reader.integer("downsample_padding", 1, 0, 1);
  config.act_fn = activation(reader, "act_fn", "silu");
  config.norm_num_groups = reader.integer("norm_num_groups", 32, 1, kMaxChannels);
  config.norm_eps = reader.number("norm_eps", 1e-5, 0.0, 1.0);
  config.dropout = reader.number("dropout", 0.0, 0.0, 1.0);
  const auto shift = reader.text("resnet_time_scale_shift", "default");
  if (shift == "scale_shift") {
    config.resnet_time_scale_shift = TimeScaleShift::kScaleShift;
  } else if (shift != "default") {
    reader.fail("resnet_time_scale_shift",
                "it cannot be represented; supported are default and scale_shift");
  }
  if (reader.boolean("use_linear_projection", false)) config.projection = Projection::kLinear;
}

// The width of the text, the same for every block that attends to it.
void parse_cross_attention_dim(ConfigReader& reader, UNetConfig& config) {
  constexpr auto kKey = "cross_attention_dim";
  const size_t count = config.down_blocks.size();
  std::vector<int64_t> widths(count, 0);
  const auto* value = reader.find(kKey);
  if (value == nullptr || !value->is_null()) {
    widths = reader.integer_or_integers(kKey, 1280, count, 1, kMaxWidth);
  }
  const auto use = [&](bool attends, int64_t width) {
    if (!attends) return;
    if (width == 0)
      reader.fail(kKey, "the model has blocks with cross-attention, which need a width");
    if (config.cross_attention_dim != 0 && config.cross_attention_dim != width) {
      reader.fail(kKey, "blocks with different text widths cannot be represented");
    }
    config.cross_attention_dim = width;
  };
  for (size_t i = 0; i < count; ++i) {
    use(config.down_blocks[i].kind == BlockKind::kCrossAttention, widths[i]);
    use(config.up_blocks[i].kind == BlockKind::kCrossAttention, widths[count - 1 - i]);
  }
  use(config.mid_block == MidBlock::kCrossAttention, widths.back());
}

void check_groups(ConfigReader& reader, int64_t channels, int64_t groups) {
  if (channels % groups != 0) {
    reader.fail("norm_num_groups", "a layer of " + std::to_string(channels) +
                                       " channels cannot be normalised in so many groups");
  }
}

// Every width that meets a group norm: a block's own, and an up block's joined with its skips.
void check_all_groups(ConfigReader& reader, const UNetConfig& config) {
  const int64_t groups = config.norm_num_groups;
  int64_t previous = config.down_blocks.back().channels;
  const size_t count = config.up_blocks.size();
  for (const auto& block : config.down_blocks) check_groups(reader, block.channels, groups);
  for (size_t i = 0; i < count; ++i) {
    const int64_t channels = config.up_blocks[i].channels;
    const int64_t outer = config.up_blocks[std::min(i + 1, count - 1)].channels;
    const int64_t layers = config.up_blocks[i].num_layers;
    for (int64_t layer = 0; layer < layers; ++layer) {
      check_groups(reader,
                   (layer == 0 ? previous : channels) + (layer == layers - 1 ? outer : channels),
                   groups);
    }
    previous = channels;
  }
}

void parse_blocks(ConfigReader& reader, UNetConfig& config) {
  const auto down = block_kinds(
      reader, "down_block_types",
      {"CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"},
      "Down");
  const auto up = block_kinds(
      reader, "up_block_types",
      {"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"}, "Up");
  const size_t count = down.size();
  if (up.size() != count) reader.fail("up_block_types", "expected as many as down_block_types");
  const auto channels =
      reader.integers("block_out_channels", {320, 640, 1280, 1280}, 1, kMaxChannels);
  if (channels.size() != count) {
    reader.fail("block_out_channels", "expected as many as down_block_types");
  }
  auto resnets = reader.integer_or_integers("layers_per_block", 2, count, 1, kMaxLayers);
  const auto heads = reader.integer_or_integers("attention_head_dim", 8, count, 1, kMaxChannels);
  const auto first = first_attentions(reader, count);
  config.mid_block = mid_block(reader);

  const auto layers = transformer_layers(reader, "transformer_layers_per_block", resnets);
  for (size_t i = 0; i < count; ++i) {
    config.down_blocks.push_back({down[i], channels[i], resnets[i], heads[i], layers[i], first[i]});
  }
  config.mid = {BlockKind::kCrossAttention, channels.back(),      1, heads.back(),
                {layers.back().front()},    FirstAttention::kSelf};

  std::vector<int64_t> up_resnets;
  for (const int64_t n : resnets | std::views::reverse) up_resnets.push_back(n + 1);
  std::vector<std::vector<int64_t>> up_layers;
  if (reader.has("reverse_transformer_layers_per_block")) {
    up_layers = transformer_layers(reader, "reverse_transformer_layers_per_block", up_resnets);
  } else {
    for (size_t i = 0; i < count; ++i) {
      const size_t twin = count - 1 - i;
      const auto* value = reader.find("transformer_layers_per_block");
      if (value != nullptr && value->is_array() && (*value)[twin].is_array()) {
        reader.fail("transformer_layers_per_block",
                    "lists for each block also need reverse_transformer_layers_per_block");
      }
      up_layers.emplace_back(static_cast<size_t>(up_resnets[i]), layers[twin].front());
    }
  }
  for (size_t i = 0; i < count; ++i) {
    const size_t twin = count - 1 - i;
    config.up_blocks.push_back(
        {up[i], channels[twin], up_resnets[i], heads[twin], up_layers[i], first[twin]});
  }
}

void check_heads(ConfigReader& reader, const UNetBlockConfig& block) {
  if (block.kind == BlockKind::kCrossAttention && block.heads > block.channels) {
    reader.fail("attention_head_dim", "more heads than the block's " +
                                          std::to_string(block.channels) +
                                          " channels (the key holds the number of heads)");
  }
}
}  // namespace

UNetConfig parse_unet_config(const nlohmann::json& json, const std::filesystem::path& file) {
  ConfigReader reader(json, file);
  const auto class_name = reader.text("_class_name", "UNet2DConditionModel");
  if (class_name != "UNet2DConditionModel") {
    reader.fail("_class_name", "only UNet2DConditionModel is supported");
  }
  UNetConfig config;
  parse_blocks(reader, config);
  parse_numbers(reader, config);
  parse_embeddings(reader, config, config.down_blocks.front().channels);
  parse_cross_attention_dim(reader, config);
  check_all_groups(reader, config);
  for (const auto& block : config.down_blocks) check_heads(reader, block);
  for (const auto& block : config.up_blocks) check_heads(reader, block);
  if (config.mid_block == MidBlock::kCrossAttention) check_heads(reader, config.mid);
  refuse_unsupported(reader);
  accept_without_effect(reader);
  reader.finish();
  config.resolved = reader.resolved();
  return config;
}
}  // namespace trireme
