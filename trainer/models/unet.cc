#include "trainer/models/unet.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "trainer/models/recompute.h"
#include "trainer/models/unet_blocks.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
Conv2d::Options same_size(int64_t kernel) {
  return {.kernel = kernel, .stride = 1, .padding = (kernel - 1) / 2};
}

std::string shape_text(const at::Tensor& tensor) {
  std::string text = "(";
  for (const int64_t size : tensor.sizes())
    text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + ")";
}

class UNet : public DiffusionModel {
 public:
  UNet(UNetConfig config, std::string config_json);

  at::Tensor forward(const at::Tensor& latents, const at::Tensor& timesteps,
                     const Condition& condition,
                     const std::optional<DropoutKey>& dropout_key) override;

  std::vector<std::pair<std::string, at::Tensor>> named_parameters() const override {
    std::vector<std::pair<std::string, at::Tensor>> named;
    for (const auto& parameter : parameters_) named.emplace_back(parameter.name, parameter.tensor);
    return named;
  }
  int64_t in_channels() const noexcept override { return config_.in_channels; }
  int64_t out_channels() const noexcept override { return config_.out_channels; }
  int64_t sample_size_multiple() const noexcept override { return 1; }
  int64_t cross_attention_dim() const noexcept override { return config_.cross_attention_dim; }
  bool takes_class_labels() const noexcept override {
    return config_.class_embedding != ClassEmbedding::kNone;
  }
  int64_t num_class_labels() const noexcept override {
    return config_.class_embedding == ClassEmbedding::kTable ? config_.num_class_embeds : 0;
  }
  AdapterSites* adapter_sites() override { return &sites_; }
  const std::vector<NamedParameter>& parameters() const noexcept { return parameters_; }
  std::string config_json() const override { return config_json_; }
  std::string resolved_config() const override { return config_.resolved; }
  std::string folder_name() const override { return "unet"; }
  void to_device(const std::string& device) override {
    const at::NoGradGuard no_grad;
    for (auto& parameter : parameters_)
      parameter.tensor.set_data(parameter.tensor.to(at::Device(device)));
  }
  void use_activation_checkpointing() override { recomputes_ = true; }

 private:
  void check_inputs(const at::Tensor& latents, const Condition& condition) const;
  at::Tensor embed(const at::Tensor& timesteps, const Condition& condition) const;  // (N, E)
  at::Tensor embed_class(const at::Tensor& labels) const;
  at::Tensor embed_added(const Condition& condition) const;
  at::Tensor run_blocks(at::Tensor x, const UNetPass& pass) const;
  at::Tensor run_blocks_recomputed(at::Tensor x, const UNetPass& pass) const;

  UNetConfig config_;
  std::string config_json_;
  std::vector<NamedParameter> parameters_;
  AdapterSites sites_;
  Conv2d conv_in_;
  TimestepEmbedding time_embedding_;
  at::Tensor class_table_;  // (num_class_embeds, E), with ClassEmbedding::kTable
  std::optional<TimestepEmbedding> class_embedding_;
  std::optional<TimestepEmbedding> add_embedding_;
  std::vector<DownBlock> down_blocks_;
  std::vector<UpBlock> up_blocks_;
  std::optional<MiddleBlock> mid_block_;
  std::optional<GroupNorm> conv_norm_out_;
  std::optional<Conv2d> conv_out_;
  bool recomputes_ = false;
};

UNet::UNet(UNetConfig config, std::string config_json)
    : config_(std::move(config)),
      config_json_(std::move(config_json)),
      conv_in_(ParameterScope(parameters_, &sites_) / "conv_in", config_.in_channels,
               config_.down_blocks.front().channels, same_size(config_.conv_in_kernel)),
      time_embedding_(ParameterScope(parameters_, &sites_) / "time_embedding",
                      config_.down_blocks.front().channels, config_.time_embed_dim, config_.act_fn,
                      config_.timestep_post_act) {
  const ParameterScope scope(parameters_, &sites_);
  const int64_t first = config_.down_blocks.front().channels;
  if (config_.class_embedding == ClassEmbedding::kTable) {
    class_table_ = (scope / "class_embedding")
                       .add("weight", {config_.num_class_embeds, config_.time_embed_dim},
                            {.kind = Init::Kind::kNormal});
  } else if (config_.class_embedding == ClassEmbedding::kTimestep) {
    class_embedding_.emplace(scope / "class_embedding", first, config_.time_embed_dim,
                             config_.act_fn, Activation::kNone);
  }
  if (config_.addition_time_embed_dim > 0) {
    add_embedding_.emplace(scope / "add_embedding", config_.projection_class_embeddings_input_dim,
                           config_.time_embed_dim, Activation::kSilu, Activation::kNone);
  }
  BlockCounter counter;
  const size_t count = config_.down_blocks.size();
  int64_t channels = first;
  for (size_t i = 0; i < count; ++i) {
    down_blocks_.emplace_back(
        scope / "down_blocks" / static_cast<int64_t>(i), config_, config_.down_blocks[i], channels,
        i + 1 == count ? DownBlock::Place::kInnermost : DownBlock::Place::kOuter, counter);
    channels = config_.down_blocks[i].channels;
  }
  for (size_t i = 0; i < count; ++i) {
    const auto& outer = config_.up_blocks[std::min(i + 1, count - 1)];
    up_blocks_.emplace_back(
        scope / "up_blocks" / static_cast<int64_t>(i), config_, config_.up_blocks[i],
        UpBlock::Channels{.from_below = channels, .skip_last = outer.channels},
        i + 1 == count ? UpBlock::Place::kOutermost : UpBlock::Place::kInner, counter);
    channels = config_.up_blocks[i].channels;
  }
  if (config_.mid_block != MidBlock::kNone)
    mid_block_.emplace(scope / "mid_block", config_, counter);
  conv_norm_out_.emplace(scope / "conv_norm_out", config_.norm_num_groups, first, config_.norm_eps);
  conv_out_.emplace(scope / "conv_out", first, config_.out_channels,
                    same_size(config_.conv_out_kernel));
}

void UNet::check_inputs(const at::Tensor& latents, const Condition& condition) const {
  if (latents.dim() != 4 || latents.size(1) != config_.in_channels) {
    throw InputError("The model takes latents of " + std::to_string(config_.in_channels) +
                     " channels; the data has shape " + shape_text(latents) +
                     ". Use data and a model that were made for each other.");
  }
  const auto& text = condition.encoder_hidden_states;
  if (config_.cross_attention_dim > 0 &&
      (!text.defined() || text.dim() != 3 || text.size(2) != config_.cross_attention_dim)) {
    throw InputError("The model attends to text of width " +
                     std::to_string(config_.cross_attention_dim) + "; the data has " +
                     (text.defined() ? "text of shape " + shape_text(text) : "none") +
                     ". Use data that was packed with the model's text encoder.");
  }
  if (takes_class_labels() && !condition.class_labels.defined()) {
    throw InputError("The model takes class labels, the data has none; add a dataset `labels`.");
  }
  if (add_embedding_) {
    const auto& pooled = condition.pooled_prompt_embeds;
    const auto& ids = condition.add_time_ids;
    if (!pooled.defined() || !ids.defined() || pooled.dim() != 2 || ids.dim() != 2 ||
        pooled.size(1) + ids.size(1) * config_.addition_time_embed_dim !=
            config_.projection_class_embeddings_input_dim) {
      throw InputError("The model takes pooled text and time ids that fill " +
                       std::to_string(config_.projection_class_embeddings_input_dim) +
                       " numbers; the data's do not. Add datasets `pooled_prompt_embeds` and "
                       "`add_time_ids` made for this model.");
    }
  }
}

at::Tensor UNet::embed_class(const at::Tensor& labels) const {
  if (config_.class_embedding == ClassEmbedding::kTable) return at::embedding(class_table_, labels);
  return (*class_embedding_)(sinusoidal_embedding(labels, config_.down_blocks.front().channels,
                                                  config_.sinusoid_order, config_.freq_shift));
}

at::Tensor UNet::embed_added(const Condition& condition) const {
  const at::Tensor times =
      sinusoidal_embedding(condition.add_time_ids.flatten(), config_.addition_time_embed_dim,
                           config_.sinusoid_order, config_.freq_shift)
          .reshape({condition.add_time_ids.size(0), -1});
  return (*add_embedding_)(at::cat({condition.pooled_prompt_embeds, times}, 1));
}

at::Tensor UNet::embed(const at::Tensor& timesteps, const Condition& condition) const {
  at::Tensor embedding = time_embedding_(sinusoidal_embedding(
      timesteps, config_.down_blocks.front().channels, config_.sinusoid_order, config_.freq_shift));
  if (takes_class_labels()) {
    const at::Tensor label = embed_class(condition.class_labels);
    embedding = config_.class_embedding_join == EmbeddingJoin::kConcatenate
                    ? at::cat({embedding, label}, 1)
                    : embedding + label;
  }
  if (add_embedding_) embedding = embedding + embed_added(condition);
  return activate(config_.time_embedding_act_fn, embedding);
}

at::Tensor UNet::run_blocks(at::Tensor x, const UNetPass& pass) const {
  std::vector<at::Tensor> skips = {x};
  for (const auto& block : down_blocks_) x = block(x, pass, skips);
  if (mid_block_) x = (*mid_block_)(x, pass);
  for (const auto& block : up_blocks_) x = block(x, pass, skips);
  return x;
}

// The same, block by block without keeping what is inside.
at::Tensor UNet::run_blocks_recomputed(at::Tensor x, const UNetPass& pass) const {
  using Tensors = std::vector<at::Tensor>;
  const auto pass_of = [key = pass.dropout_key](const Tensors& inputs) {
    return UNetPass{.embedding = inputs[0], .text = inputs[1], .dropout_key = key};
  };
  Tensors skips = {x};
  for (const auto& block : down_blocks_) {
    const Tensors added = recompute_in_backward(
        [&block, pass_of](const Tensors& inputs) {
          Tensors outputs;
          (void)block(inputs[2], pass_of(inputs), outputs);
          return outputs;  // The last one is what the block returns.
        },
        {pass.embedding, pass.text, x});
    skips.insert(skips.end(), added.begin(), added.end());
    x = skips.back();
  }
  if (mid_block_) {
    x = recompute_in_backward(
            [this, pass_of](const Tensors& inputs) {
              return Tensors{(*mid_block_)(inputs[2], pass_of(inputs))};
            },
            {pass.embedding, pass.text, x})
            .front();
  }
  for (const auto& block : up_blocks_) {
    // The skips that the block takes, and the one below, whose size it grows to.
    const auto taken = static_cast<std::ptrdiff_t>(block.num_skips());
    const auto seen = std::min<std::ptrdiff_t>(taken + 1, std::ssize(skips));
    Tensors inputs = {pass.embedding, pass.text, x};
    inputs.insert(inputs.end(), skips.end() - seen, skips.end());
    x = recompute_in_backward(
            [&block, pass_of](const Tensors& given) {
              Tensors rest(given.begin() + 3, given.end());
              return Tensors{block(given[2], pass_of(given), rest)};
            },
            inputs)
            .front();
    skips.erase(skips.end() - taken, skips.end());
  }
  return x;
}

at::Tensor UNet::forward(const at::Tensor& latents, const at::Tensor& timesteps,
                         const Condition& condition, const std::optional<DropoutKey>& dropout_key) {
  check_inputs(latents, condition);
  const UNetPass pass{.embedding = activate(config_.act_fn, embed(timesteps, condition)),
                      .text = condition.encoder_hidden_states,
                      .dropout_key = dropout_key};
  at::Tensor x = conv_in_(config_.input_range == InputRange::kCentered ? 2 * latents - 1 : latents);
  x = recomputes_ ? run_blocks_recomputed(x, pass) : run_blocks(x, pass);
  return (*conv_out_)(activate(config_.act_fn, (*conv_norm_out_)(x)));  // (N, C_out, H, W)
}
}  // namespace

BlankModel make_blank_unet(const UNetConfig& config, std::string config_json) {
  auto model = std::make_unique<UNet>(config, std::move(config_json));
  std::vector<NamedParameter> parameters = model->parameters();
  return {std::move(model), std::move(parameters)};
}
}  // namespace trireme
