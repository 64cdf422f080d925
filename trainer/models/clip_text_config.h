#pragma once
#include <cstdint>
#include <filesystem>

#include <nlohmann/json_fwd.hpp>

#include "trainer/models/clip_layers.h"

namespace trireme {

// A CLIPTextModel's config.json as transformers 4 and 5 write it, validated. Names are theirs.
struct ClipTextConfig {
  int64_t vocab_size = 49408;
  int64_t hidden_size = 512;
  int64_t intermediate_size = 2048;
  int64_t projection_dim = 512;
  int64_t num_hidden_layers = 12;
  int64_t num_attention_heads = 8;
  int64_t max_position_embeddings = 77;
  int64_t eos_token_id = 49407;
  double layer_norm_eps = 1e-5;
  ClipGelu hidden_act = ClipGelu::kQuick;
  enum class Pooled { kHidden, kProjected };
  Pooled pooled = Pooled::kHidden;  // kProjected: architectures has CLIPTextModelWithProjection.
};

// Throws InputError naming `file` and the key that cannot be represented exactly.
[[nodiscard]] ClipTextConfig parse_clip_text_config(const nlohmann::json& json,
                                                    const std::filesystem::path& file);
}  // namespace trireme
