#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "trainer/models/attention.h"
#include "trainer/models/layers.h"

namespace trireme {

enum class TimeScaleShift { kDefault, kScaleShift };
enum class BlockKind { kPlain, kCrossAttention };
enum class MidBlock { kNone, kPlain, kCrossAttention };
enum class ClassEmbedding { kNone, kTable, kTimestep };
enum class EmbeddingJoin { kAdd, kConcatenate };
enum class InputRange { kAsIs, kCentered };  // kCentered: 2 x - 1.

// What a block of one resolution is made of. For up blocks: counted from the innermost.
struct UNetBlockConfig {
  BlockKind kind = BlockKind::kPlain;
  int64_t channels = 0;
  int64_t num_layers = 0;                   // Resnets; an up block has one more than its twin.
  int64_t heads = 0;                        // 0 in a plain block.
  std::vector<int64_t> transformer_layers;  // One for each layer.
  FirstAttention first_attention = FirstAttention::kSelf;
};

// A UNet2DConditionModel's config.json, resolved and validated. Names are diffusers'. What the key
// `attention_head_dim` holds is the number of heads, as diffusers has it for these models.
struct UNetConfig {
  int64_t in_channels = 4;
  int64_t out_channels = 4;
  int64_t conv_in_kernel = 3;
  int64_t conv_out_kernel = 3;
  InputRange input_range = InputRange::kAsIs;

  std::vector<UNetBlockConfig> down_blocks;
  std::vector<UNetBlockConfig> up_blocks;
  MidBlock mid_block = MidBlock::kCrossAttention;
  UNetBlockConfig mid;
  double mid_block_scale_factor = 1.0;
  int64_t downsample_padding = 1;

  Activation act_fn = Activation::kSilu;
  int64_t norm_num_groups = 32;
  double norm_eps = 1e-5;
  double dropout = 0.0;
  TimeScaleShift resnet_time_scale_shift = TimeScaleShift::kDefault;

  int64_t cross_attention_dim = 0;  // 0: no block attends to text.
  Projection projection = Projection::kConvolution;

  SinusoidOrder sinusoid_order = SinusoidOrder::kCosSin;
  double freq_shift = 0.0;
  int64_t time_embed_dim = 0;
  Activation timestep_post_act = Activation::kNone;
  Activation time_embedding_act_fn = Activation::kNone;
  ClassEmbedding class_embedding = ClassEmbedding::kNone;
  int64_t num_class_embeds = 0;  // With kTable.
  EmbeddingJoin class_embedding_join = EmbeddingJoin::kAdd;
  int64_t addition_time_embed_dim = 0;  // 0: no added pooled text and time ids.
  int64_t projection_class_embeddings_input_dim = 0;

  // Each key that matters with its value or its default (ConfigReader::resolved()).
  std::string resolved = {};

  [[nodiscard]] int64_t block_embed_dim() const {
    return class_embedding_join == EmbeddingJoin::kConcatenate ? 2 * time_embed_dim
                                                               : time_embed_dim;
  }
};

// Throws InputError naming `file`, key and value for whatever diffusers would refuse or this
// program cannot compute exactly. Keys that start with '_' are ignored; unknown ones may be null or
// false.
[[nodiscard]] UNetConfig parse_unet_config(const nlohmann::json& json,
                                           const std::filesystem::path& file);
}  // namespace trireme
