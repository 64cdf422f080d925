#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/session.h"

namespace trireme {

// What is to be sampled: a caption for each picture, and what the model takes of it.
struct SamplePrompts {
  std::vector<std::string> captions;
  // Embeddings of pictures [first, first + count): (count, L, D); empty for a model without text.
  // It reads the session's data, which outlives it.
  std::function<at::Tensor(int64_t first, int64_t count)> embeds;
  at::Tensor negative_embeds;  // (1, L, D), what guidance leads away from: mostly the empty prompt.
  std::string negative_prompt;
  std::vector<int64_t> labels;  // One each for a model that takes class labels, else none.
  LatentShape shape;            // Of each sample.

  [[nodiscard]] int64_t count() const { return static_cast<int64_t>(captions.size()); }
};

// [sample].count prompts: sample.prompts (encoded by the text encoder beside the model's weights,
// in turn) or, where that is empty, captions of the validation data (else of the training data),
// spread evenly over it. Local. Throws InputError, UsageError.
[[nodiscard]] SamplePrompts choose_prompts(const Session& session);

// `count` samples of the first class (so of one shape), spread evenly over the validation data, or
// the training data where there is none; in turn where there are fewer.
[[nodiscard]] std::vector<int64_t> spread_samples(const Session& session, int64_t count);
// Their captions (ids where the model takes no text) and embeddings. `samples` are indices into
// session.validation_dataset(); not empty.
[[nodiscard]] SamplePrompts prompts_of_samples(const Session& session,
                                               const std::vector<int64_t>& samples);
}  // namespace trireme
