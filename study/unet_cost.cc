#include "study/unet_cost.h"

#include <string>

#include "study/cost_builder.h"
#include "trainer/models/unet_config.h"

namespace trireme {
namespace {
struct Grid {
  int64_t height = 0;
  int64_t width = 0;
  [[nodiscard]] int64_t rows() const { return height * width; }
};

// Follows the forward pass of trainer/models/unet.cc.
class UNetCounter {
 public:
  UNetCounter(const UNetConfig& config, const InputShape& input, std::vector<LayerCost>& layers)
      : config_(config), tokens_(input.text_tokens), build_(layers) {
    grid_ = {input.height, input.width};
  }

  void count() {
    const int64_t first = config_.down_blocks.front().channels;
    embeddings(first);
    build_.convolution("conv_in", config_.in_channels, first, config_.conv_in_kernel, grid_.rows(),
                       grid_.rows());
    build_.reads_data();
    skips_.push_back({first, grid_});
    channels_ = first;
    for (size_t i = 0; i < config_.down_blocks.size(); ++i) down(i);
    middle();
    for (size_t i = 0; i < config_.up_blocks.size(); ++i) up(i);
    build_.end_blocks();
    build_.norm("conv_norm_out", channels_, grid_.rows());
    build_.activation("conv_act", channels_, grid_.rows());
    build_.convolution("conv_out", channels_, config_.out_channels, config_.conv_out_kernel,
                       grid_.rows(), grid_.rows());
  }

 private:
  struct Skip {
    int64_t channels;
    Grid grid;
  };

  void embedding(const std::string& name, int64_t in) {
    build_.linear(name + ".linear_1", in, config_.time_embed_dim, 1);
    build_.reads_data();
    build_.linear(name + ".linear_2", config_.time_embed_dim, config_.time_embed_dim, 1);
  }

  void embeddings(int64_t first) {
    embedding("time_embedding", first);
    if (config_.class_embedding == ClassEmbedding::kTable) {
      build_.table("class_embedding", config_.num_class_embeds * config_.time_embed_dim);
    } else if (config_.class_embedding == ClassEmbedding::kTimestep) {
      embedding("class_embedding", first);
    }
    if (config_.addition_time_embed_dim > 0) {
      embedding("add_embedding", config_.projection_class_embeddings_input_dim);
    }
  }

  void resnet(const std::string& name, int64_t in, int64_t out) {
    const int64_t rows = grid_.rows();
    build_.norm(name + ".norm1", in, rows);
    build_.activation(name + ".act1", in, rows);
    build_.convolution(name + ".conv1", in, out, 3, rows, rows);
    const bool is_scaled = config_.resnet_time_scale_shift == TimeScaleShift::kScaleShift;
    build_.linear(name + ".time_emb_proj", config_.block_embed_dim(), is_scaled ? 2 * out : out, 1);
    build_.norm(name + ".norm2", out, rows);
    build_.activation(name + ".act2", out, rows);
    build_.convolution(name + ".conv2", out, out, 3, rows, rows);
    if (in != out) build_.convolution(name + ".conv_shortcut", in, out, 1, rows, rows);
    channels_ = out;
  }

  static double elements(int64_t channels, const Grid& grid) {
    return static_cast<double>(channels) * static_cast<double>(grid.rows());
  }

  // Of the skips that a block takes.
  [[nodiscard]] double skip_elements(int64_t num_skips) const {
    double sum = 0.0;
    for (auto skip = skips_.end() - num_skips; skip != skips_.end(); ++skip) {
      sum += elements(skip->channels, skip->grid);
    }
    return sum;
  }

  enum class Context { kHidden, kText };
  void attention(const std::string& name, int64_t channels, Context kind) {
    const int64_t rows = grid_.rows();
    const bool on_text = kind == Context::kText;
    const int64_t context = on_text ? config_.cross_attention_dim : channels;
    const int64_t keys = on_text ? tokens_ : rows;
    using Bias = CostBuilder::Bias;
    build_.linear(name + ".to_q", channels, channels, rows, Bias::kNo);
    for (const char* part : {".to_k", ".to_v"}) {
      build_.linear(name + part, context, channels, keys, Bias::kNo);
      if (on_text) build_.reads_data();
    }
    build_.attention(name + ".sdpa", channels, rows, keys);
    build_.linear(name + ".to_out.0", channels, channels, rows);
  }

  void transformer(const std::string& name, const UNetBlockConfig& block, int64_t num_layers) {
    const int64_t rows = grid_.rows();
    const int64_t inner = block.channels / block.heads * block.heads;
    build_.norm(name + ".norm", block.channels, rows);
    build_.linear(name + ".proj_in", block.channels, inner, rows);
    for (int64_t i = 0; i < num_layers; ++i) {
      const std::string layer = name + ".transformer_blocks." + std::to_string(i);
      build_.norm(layer + ".norm1", inner, rows);
      const bool on_text = block.first_attention == FirstAttention::kText;
      attention(layer + ".attn1", inner, on_text ? Context::kText : Context::kHidden);
      build_.norm(layer + ".norm2", inner, rows);
      attention(layer + ".attn2", inner, Context::kText);
      build_.norm(layer + ".norm3", inner, rows);
      build_.linear(layer + ".ff.net.0.proj", inner, 8 * inner, rows);
      build_.activation(layer + ".ff.geglu", 8 * inner, rows);
      build_.linear(layer + ".ff.net.2", 4 * inner, inner, rows);
    }
    build_.linear(name + ".proj_out", inner, block.channels, rows);
  }

  void attend(const std::string& name, const UNetBlockConfig& block, int64_t layer) {
    if (block.kind == BlockKind::kPlain) return;
    transformer(name + ".attentions." + std::to_string(layer), block,
                block.transformer_layers[static_cast<size_t>(layer)]);
  }

  void down(size_t index) {
    const UNetBlockConfig& block = config_.down_blocks[index];
    const std::string name = "down_blocks." + std::to_string(index);
    build_.begin_block(0.0);  // Its input is a skip, which an up block's inputs count.
    for (int64_t i = 0; i < block.num_layers; ++i) {
      resnet(name + ".resnets." + std::to_string(i), channels_, block.channels);
      attend(name, block, i);
      skips_.push_back({channels_, grid_});
    }
    if (index + 1 == config_.down_blocks.size()) return;
    const Grid before = grid_;
    // Padding 0 is padded by one at the far ends beforehand.
    const int64_t padding = config_.downsample_padding == 0 ? 1 : 2 * config_.downsample_padding;
    grid_ = {(before.height + padding - 3) / 2 + 1, (before.width + padding - 3) / 2 + 1};
    build_.convolution(name + ".downsamplers.0.conv", channels_, channels_, 3, before.rows(),
                       grid_.rows());
    skips_.push_back({channels_, grid_});
  }

  void middle() {
    if (config_.mid_block == MidBlock::kNone) return;
    build_.begin_block(0.0);  // Likewise.
    const int64_t channels = config_.mid.channels;
    resnet("mid_block.resnets.0", channels_, channels);
    if (config_.mid_block != MidBlock::kCrossAttention) return;
    attend("mid_block", config_.mid, 0);
    resnet("mid_block.resnets.1", channels, channels);
  }

  void up(size_t index) {
    const UNetBlockConfig& block = config_.up_blocks[index];
    const std::string name = "up_blocks." + std::to_string(index);
    build_.begin_block(elements(channels_, grid_) + skip_elements(block.num_layers));
    for (int64_t i = 0; i < block.num_layers; ++i) {
      resnet(name + ".resnets." + std::to_string(i), channels_ + skips_.back().channels,
             block.channels);
      skips_.pop_back();
      attend(name, block, i);
    }
    if (index + 1 == config_.up_blocks.size()) return;
    grid_ = skips_.back().grid;
    build_.convolution(name + ".upsamplers.0.conv", channels_, channels_, 3, grid_.rows(),
                       grid_.rows());
  }

  const UNetConfig& config_;
  int64_t tokens_;
  CostBuilder build_;
  Grid grid_;
  int64_t channels_ = 0;
  std::vector<Skip> skips_;
};
}  // namespace

std::vector<LayerCost> unet_layers(const UNetConfig& config, const InputShape& input) {
  std::vector<LayerCost> layers;
  UNetCounter(config, input, layers).count();
  return layers;
}
}  // namespace trireme
