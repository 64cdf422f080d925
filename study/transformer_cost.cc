#include "study/transformer_cost.h"

#include <algorithm>
#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include "study/cost_builder.h"

namespace trireme {
namespace {
constexpr int64_t kMaxWidth = 65536;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kTimeChannels = 256;  // Of the sinusoidal embedding.

struct Width {
  int64_t heads;
  int64_t head_dim;
  [[nodiscard]] int64_t channels() const { return heads * head_dim; }
};

Width width_of(ConfigReader& reader, int64_t heads, int64_t head_dim) {
  return {reader.integer("num_attention_heads", heads, 1, 4096),
          reader.integer("attention_head_dim", head_dim, 1, 4096)};
}

void embedding(CostBuilder& build, const std::string& name, int64_t in, int64_t out) {
  build.linear(name + ".linear_1", in, out, 1);
  build.reads_data();
  build.linear(name + ".linear_2", out, out, 1);
}

// A gelu layer of inner width 4 d on `rows`.
void feed_forward(CostBuilder& build, const std::string& name, int64_t d, int64_t rows) {
  build.linear(name + ".net.0.proj", d, 4 * d, rows);
  build.activation(name + ".net.0.gelu", 4 * d, rows);
  build.linear(name + ".net.2", 4 * d, d, rows);
}

void qkv(CostBuilder& build, const std::string& name, const std::string& prefix, int64_t d,
         int64_t rows) {
  for (const char* part : {"q", "k", "v"}) build.linear(name + prefix + part, d, d, rows);
}

struct JointBlock {
  int64_t d = 0;
  int64_t head_dim = 0;
  int64_t image = 0;
  int64_t text = 0;
  enum class Text { kUpdated, kLast } text_stream = Text::kUpdated;  // kLast: read only.
  enum class QueryNorm { kNone, kRms } query_norm = QueryNorm::kNone;
  enum class Second { kNone, kImageOnly } second = Second::kNone;  // Another attention.
};

// A block in which image and text, each with weights of its own, attend to both (MMDiT).
void joint_block(CostBuilder& build, const std::string& name, const JointBlock& block) {
  const int64_t d = block.d;
  const bool is_updated = block.text_stream == JointBlock::Text::kUpdated;
  const bool has_second = block.second == JointBlock::Second::kImageOnly;
  build.begin_block(static_cast<double>(d * (block.image + block.text)));
  build.linear(name + ".norm1.linear", d, has_second ? 9 * d : 6 * d, 1);
  build.linear(name + ".norm1_context.linear", d, is_updated ? 6 * d : 2 * d, 1);
  build.activation(name + ".norm1", d, block.image + block.text);
  qkv(build, name, ".attn.to_", d, block.image);
  qkv(build, name, ".attn.add_", d, block.text);
  if (block.query_norm == JointBlock::QueryNorm::kRms) {
    for (const char* part : {"norm_q", "norm_k", "norm_added_q", "norm_added_k"})
      build.table(name + ".attn." + part, block.head_dim);
  }
  build.attention(name + ".attn", d, block.image + block.text, block.image + block.text);
  build.linear(name + ".attn.to_out.0", d, d, block.image);
  if (is_updated) build.linear(name + ".attn.to_add_out", d, d, block.text);
  if (has_second) {
    qkv(build, name, ".attn2.to_", d, block.image);
    if (block.query_norm == JointBlock::QueryNorm::kRms) {
      build.table(name + ".attn2.norm_q", block.head_dim);
      build.table(name + ".attn2.norm_k", block.head_dim);
    }
    build.attention(name + ".attn2", d, block.image, block.image);
    build.linear(name + ".attn2.to_out.0", d, d, block.image);
  }
  build.activation(name + ".norm2", d, block.image + (is_updated ? block.text : 0));
  feed_forward(build, name + ".ff", d, block.image);
  if (is_updated) feed_forward(build, name + ".ff_context", d, block.text);
}

// Attention and feed-forward side by side on one sequence, behind one output projection.
void parallel_block(CostBuilder& build, const std::string& name, const Width& width, int64_t rows) {
  const int64_t d = width.channels();
  build.begin_block(static_cast<double>(d * rows));
  build.linear(name + ".norm.linear", d, 3 * d, 1);
  build.activation(name + ".norm", d, rows);
  build.linear(name + ".proj_mlp", d, 4 * d, rows);
  build.activation(name + ".act_mlp", 4 * d, rows);
  qkv(build, name, ".attn.to_", d, rows);
  build.table(name + ".attn.norm_q", width.head_dim);
  build.table(name + ".attn.norm_k", width.head_dim);
  build.attention(name + ".attn", d, rows, rows);
  build.linear(name + ".proj_out", 5 * d, d, rows);
}
struct Channels {
  int64_t in;
  int64_t out;
};

Channels channels_of(ConfigReader& reader, int64_t in_channels) {
  const int64_t in = reader.integer("in_channels", in_channels, 1, kMaxWidth);
  return {in, reader.has("out_channels") ? reader.integer("out_channels", in, 1, kMaxWidth) : in};
}

// The tokens of the image, from patches of `patch_size` values each, and of the text.
void embed_tokens(CostBuilder& build, ConfigReader& reader, const std::string& image,
                  int64_t patch_size, const JointBlock& block) {
  build.linear(image, patch_size, block.d, block.image);
  build.reads_data();
  build.linear("context_embedder", reader.integer("joint_attention_dim", 4096, 1, kMaxWidth),
               block.d, block.text);
  build.reads_data();
}

void text_embedding(CostBuilder& build, ConfigReader& reader, int64_t width, int64_t d) {
  embedding(build, "time_text_embed.text_embedder",
            reader.integer("pooled_projection_dim", width, 1, kMaxWidth), d);
}

// A modulated norm, and the projection to patches of `patch_size` values each.
void output(CostBuilder& build, const JointBlock& block, int64_t patch_size) {
  build.end_blocks();
  build.linear("norm_out.linear", block.d, 2 * block.d, 1);
  build.linear("proj_out", block.d, patch_size, block.image);
}
}  // namespace

std::vector<LayerCost> dit_layers(ConfigReader& reader, const InputShape& input) {
  std::vector<LayerCost> layers;
  CostBuilder build(layers);
  const int64_t d = width_of(reader, 16, 72).channels();
  const int64_t patch = reader.integer("patch_size", 2, 1, 64);
  const Channels channels = channels_of(reader, 4);
  const int64_t classes = reader.integer("num_embeds_ada_norm", 1000, 1, 1 << 20);
  const int64_t rows = (input.height / patch) * (input.width / patch);
  build.linear("pos_embed.proj", channels.in * patch * patch, d, rows);
  build.reads_data();
  const int64_t num_layers = reader.integer("num_layers", 28, 1, kMaxLayers);
  for (int64_t i = 0; i < num_layers; ++i) {
    const std::string name = "transformer_blocks." + std::to_string(i);
    build.begin_block(static_cast<double>(d * rows));
    embedding(build, name + ".norm1.emb.timestep_embedder", kTimeChannels, d);
    build.table(name + ".norm1.emb.class_embedder", (classes + 1) * d);
    build.linear(name + ".norm1.linear", d, 6 * d, 1);
    build.activation(name + ".norm1", d, rows);
    qkv(build, name, ".attn1.to_", d, rows);
    build.attention(name + ".attn1", d, rows, rows);
    build.linear(name + ".attn1.to_out.0", d, d, rows);
    build.activation(name + ".norm3", d, rows);
    feed_forward(build, name + ".ff", d, rows);
  }
  build.end_blocks();
  // The output's modulation comes from the first block's embedding, computed again.
  build.linear("proj_out_1", d, 2 * d, 1);
  build.linear("proj_out_2", d, patch * patch * channels.out, rows);
  return layers;
}

std::vector<LayerCost> sd3_layers(ConfigReader& reader, const InputShape& input) {
  std::vector<LayerCost> layers;
  CostBuilder build(layers);
  const Width width = width_of(reader, 18, 64);
  const int64_t patch = reader.integer("patch_size", 2, 1, 64);
  const Channels channels = channels_of(reader, 16);
  JointBlock block{.d = width.channels(),
                   .head_dim = width.head_dim,
                   .image = (input.height / patch) * (input.width / patch),
                   .text = input.text_tokens};
  embed_tokens(build, reader, "pos_embed.proj", channels.in * patch * patch, block);
  embedding(build, "time_text_embed.timestep_embedder", kTimeChannels, block.d);
  text_embedding(build, reader, 2048, block.d);
  const int64_t num_layers = reader.integer("num_layers", 18, 1, kMaxLayers);
  const auto* dual = reader.find("dual_attention_layers");
  if (reader.has("qk_norm")) block.query_norm = JointBlock::QueryNorm::kRms;
  for (int64_t i = 0; i < num_layers; ++i) {
    const bool has_second = dual != nullptr && dual->is_array() &&
                            std::find(dual->begin(), dual->end(), i) != dual->end();
    block.second = has_second ? JointBlock::Second::kImageOnly : JointBlock::Second::kNone;
    if (i + 1 == num_layers) block.text_stream = JointBlock::Text::kLast;
    joint_block(build, "transformer_blocks." + std::to_string(i), block);
  }
  output(build, block, patch * patch * channels.out);
  return layers;
}

std::vector<LayerCost> flux_layers(ConfigReader& reader, const InputShape& input) {
  std::vector<LayerCost> layers;
  CostBuilder build(layers);
  const Width width = width_of(reader, 24, 128);
  const Channels channels = channels_of(reader, 64);  // Of a patch of 2 x 2.
  const JointBlock block{.d = width.channels(),
                         .head_dim = width.head_dim,
                         .image = (input.height / 2) * (input.width / 2),
                         .text = input.text_tokens,
                         .query_norm = JointBlock::QueryNorm::kRms};
  embed_tokens(build, reader, "x_embedder", channels.in, block);
  embedding(build, "time_text_embed.timestep_embedder", kTimeChannels, block.d);
  if (reader.boolean("guidance_embeds", false)) {
    embedding(build, "time_text_embed.guidance_embedder", kTimeChannels, block.d);
  }
  text_embedding(build, reader, 768, block.d);
  const int64_t num_joint = reader.integer("num_layers", 19, 0, kMaxLayers);
  for (int64_t i = 0; i < num_joint; ++i) {
    joint_block(build, "transformer_blocks." + std::to_string(i), block);
  }
  const int64_t num_single = reader.integer("num_single_layers", 38, 0, kMaxLayers);
  for (int64_t i = 0; i < num_single; ++i) {
    parallel_block(build, "single_transformer_blocks." + std::to_string(i), width,
                   block.image + block.text);
  }
  output(build, block, channels.out);
  return layers;
}
}  // namespace trireme
