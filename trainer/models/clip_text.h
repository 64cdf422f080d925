#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/models/clip_text_config.h"

namespace trireme {

// CLIP's byte-pair tokenizer (Radford et al., 2021), equal to transformers' CLIPTokenizer on any
// Unicode text. Local, const methods thread-safe.
class ClipTokenizer {
 public:
  // A diffusers folder with tokenizer/, or the tokenizer folder (vocab.json, merges.txt,
  // tokenizer_config.json, special_tokens_map.json where present). Throws InputError.
  static std::unique_ptr<ClipTokenizer> load(const std::filesystem::path& folder);
  virtual ~ClipTokenizer() = default;
  // Token ids without special tokens, not truncated.
  [[nodiscard]] virtual std::vector<int64_t> tokenize(std::string_view text) const = 0;
  // begin, tokens truncated, end, padding: max_length() ids.
  [[nodiscard]] virtual std::vector<int64_t> encode(std::string_view text) const = 0;
  [[nodiscard]] virtual int64_t max_length() const noexcept = 0;  // 77
};

// transformers' CLIPTextModel for inference: OpenAI CLIP-L, OpenCLIP-H of SD 2, and the like.
// Local; forward() may be called from several threads at once.
class ClipTextModel {
 public:
  // A diffusers folder with text_encoder/, or the folder itself. Reads weights with and without the
  // `text_model.` prefix. Throws InputError.
  static std::unique_ptr<ClipTextModel> load(const std::filesystem::path& folder);
  // With text projection, from a weights file that may hold a whole CLIPModel. Throws InputError.
  static std::unique_ptr<ClipTextModel> load_projected(ClipTextConfig config,
                                                       const std::filesystem::path& weights);
  virtual ~ClipTextModel() = default;

  struct Output {
    at::Tensor last_hidden_state;  // (N, L, D), after the final layer norm
    at::Tensor pooled;             // (N, D), at the end-of-text token
  };
  // token_ids: (N, L) int64.
  [[nodiscard]] virtual Output forward(const at::Tensor& token_ids) = 0;
  [[nodiscard]] virtual int64_t hidden_size() const noexcept = 0;
  [[nodiscard]] virtual int64_t num_layers() const noexcept = 0;
  [[nodiscard]] virtual int64_t max_position_embeddings() const noexcept = 0;
  [[nodiscard]] virtual std::string weights_sha256() const = 0;
  virtual void to_device(const std::string& device) = 0;
};
}  // namespace trireme
