#include "trainer/models/clip_text_config.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "trainer/models/config_reader.h"

namespace trireme {
namespace {
// Keys of transformers' base class and of training, which change nothing in the forward pass.
constexpr std::string_view kNeutral[] = {"add_cross_attention",
                                         "attention_dropout",
                                         "attn_implementation",
                                         "bad_words_ids",
                                         "begin_suppress_tokens",
                                         "bos_token_id",
                                         "chunk_size_feed_forward",
                                         "cross_attention_hidden_size",
                                         "decoder_start_token_id",
                                         "diversity_penalty",
                                         "do_sample",
                                         "dropout",
                                         "dtype",
                                         "early_stopping",
                                         "encoder_no_repeat_ngram_size",
                                         "exponential_decay_length_penalty",
                                         "finetuning_task",
                                         "forced_bos_token_id",
                                         "forced_eos_token_id",
                                         "id2label",
                                         "initializer_factor",
                                         "initializer_range",
                                         "is_decoder",
                                         "is_encoder_decoder",
                                         "label2id",
                                         "length_penalty",
                                         "max_length",
                                         "min_length",
                                         "no_repeat_ngram_size",
                                         "num_beam_groups",
                                         "num_beams",
                                         "num_return_sequences",
                                         "output_attentions",
                                         "output_hidden_states",
                                         "output_scores",
                                         "pad_token_id",
                                         "prefix",
                                         "problem_type",
                                         "pruned_heads",
                                         "remove_invalid_values",
                                         "repetition_penalty",
                                         "return_dict",
                                         "return_dict_in_generate",
                                         "sep_token_id",
                                         "suppress_tokens",
                                         "task_specific_params",
                                         "temperature",
                                         "tf_legacy_loss",
                                         "tie_encoder_decoder",
                                         "tie_word_embeddings",
                                         "tokenizer_class",
                                         "top_k",
                                         "top_p",
                                         "torch_dtype",
                                         "torchscript",
                                         "transformers_version",
                                         "typical_p",
                                         "use_bfloat16",
                                         "use_cache"};

ClipTextConfig::Pooled pooled(ConfigReader& reader) {
  if (!reader.has("architectures")) return ClipTextConfig::Pooled::kHidden;
  for (const auto& name : reader.texts("architectures", {})) {
    if (name == "CLIPTextModelWithProjection") return ClipTextConfig::Pooled::kProjected;
    if (name != "CLIPTextModel" && name != "CLIPModel") {
      reader.fail("architectures",
                  "only CLIPTextModel and CLIPTextModelWithProjection can be read");
    }
  }
  return ClipTextConfig::Pooled::kHidden;
}

ClipGelu activation(ConfigReader& reader) {
  const std::string name = reader.text("hidden_act", "quick_gelu");
  if (name == "quick_gelu") return ClipGelu::kQuick;
  if (name == "gelu") return ClipGelu::kExact;
  reader.fail("hidden_act", "only quick_gelu and gelu can be represented");
}
}  // namespace

ClipTextConfig parse_clip_text_config(const nlohmann::json& json,
                                      const std::filesystem::path& file) {
  ConfigReader reader(json, file);
  if (reader.text("model_type", "clip_text_model") != "clip_text_model") {
    reader.fail("model_type", "only clip_text_model can be read");
  }
  ClipTextConfig config;
  config.vocab_size = reader.integer("vocab_size", 49408, 1, int64_t{1} << 24);
  config.hidden_size = reader.integer("hidden_size", 512, 1, 16384);
  config.intermediate_size = reader.integer("intermediate_size", 2048, 1, 65536);
  if (reader.has("projection_dim")) {
    config.projection_dim = reader.integer("projection_dim", 512, 1, 16384);
  }
  config.num_hidden_layers = reader.integer("num_hidden_layers", 12, 0, 256);
  config.num_attention_heads = reader.integer("num_attention_heads", 8, 1, 16384);
  if (config.hidden_size % config.num_attention_heads != 0) {
    reader.fail("num_attention_heads", "it does not divide hidden_size");
  }
  config.max_position_embeddings = reader.integer("max_position_embeddings", 77, 1, 65536);
  if (reader.has("eos_token_id")) {
    config.eos_token_id = reader.integer("eos_token_id", 49407, 0, int64_t{1} << 24);
  }
  if (reader.has("layer_norm_eps")) {
    config.layer_norm_eps = reader.number("layer_norm_eps", 1e-5, 0.0, 1.0);
  }
  config.hidden_act = activation(reader);
  config.pooled = pooled(reader);
  for (const auto key : kNeutral) reader.ignore(key);
  reader.finish();
  return config;
}
}  // namespace trireme
