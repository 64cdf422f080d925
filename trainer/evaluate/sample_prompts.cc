#include "trainer/evaluate/sample_prompts.h"

#include <span>
#include <utility>

#include "core/error.h"
#include "data/latent_math.h"
#include "trainer/models/clip_text.h"
#include "trainer/pipeline_folder.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
at::Tensor text_row(const LatentDataset& data, int64_t row) {
  const auto text = data.text();
  auto embeds = torch::empty({1, text->length, text->width});
  data.read_prompt_embeds(row,
                          std::span(embeds.data_ptr<float>(), static_cast<size_t>(embeds.numel())));
  return embeds;
}

// The text encoder of the model's pipeline.
class PromptEncoder {
 public:
  explicit PromptEncoder(const std::string& weights) {
    const auto encoder = pipeline_part(weights, "text_encoder");
    const auto tokenizer = pipeline_part(weights, "tokenizer");
    if (!encoder || !tokenizer) {
      throw UsageError(
          "sample.prompts and sample.negative_prompt need text_encoder/ and tokenizer/ in or "
          "beside "
          "model.weights = '" +
          weights + "'. Leave them empty to use captions of the data.");
    }
    encoder_ = ClipTextModel::load(*encoder);
    tokenizer_ = ClipTokenizer::load(*tokenizer);
  }

  // (1, L, D)
  at::Tensor operator()(const std::string& text) const {
    const torch::NoGradGuard no_grad;
    const auto ids = tokenizer_->encode(text);
    return encoder_->forward(torch::tensor(ids).unsqueeze(0)).last_hidden_state;
  }

 private:
  std::unique_ptr<ClipTextModel> encoder_;
  std::unique_ptr<ClipTokenizer> tokenizer_;
};

SamplePrompts prompts_of_config(const Session& session) {
  const auto& config = session.config;
  const auto& texts = config.sample.prompts;
  const PromptEncoder encode(config.model.weights);
  SamplePrompts prompts;
  prompts.shape =
      cropped_shape(session.validation_dataset().classes().front().shape, session.config.data.crop);
  std::vector<at::Tensor> encoded;
  const auto count = static_cast<size_t>(config.sample.count);
  for (size_t i = 0; i < std::min(count, texts.size()); ++i) encoded.push_back(encode(texts[i]));
  for (size_t i = 0; i < count; ++i) prompts.captions.push_back(texts[i % texts.size()]);
  prompts.embeds = [encoded = std::move(encoded)](int64_t first, int64_t n) {
    std::vector<at::Tensor> rows;
    for (int64_t i = first; i < first + n; ++i) {
      rows.push_back(encoded[static_cast<size_t>(i) % encoded.size()]);
    }
    return torch::cat(rows);
  };
  prompts.negative_prompt = config.sample.negative_prompt;
  prompts.negative_embeds = encode(prompts.negative_prompt);
  return prompts;
}
}  // namespace

std::vector<int64_t> spread_samples(const Session& session, int64_t count) {
  const auto& data = session.validation_dataset();
  const bool from_split = !session.validation_files;
  const bool validates = session.num_validation() > 0;
  std::vector<int64_t> samples;
  const Split everything(data.classes());
  const int64_t available = !from_split ? everything.num_training(0)
                            : validates ? session.split->num_validation(0)
                                        : session.split->num_training(0);
  for (int64_t i = 0; i < count && available > 0; ++i) {
    const int64_t k = count <= available ? i * available / count : i % available;
    samples.push_back(!from_split ? everything.training_sample(0, k)
                      : validates ? session.split->validation_sample(0, k)
                                  : session.split->training_sample(0, k));
  }
  return samples;
}

SamplePrompts prompts_of_samples(const Session& session, const std::vector<int64_t>& samples) {
  const auto& data = session.validation_dataset();
  SamplePrompts prompts;
  prompts.shape = cropped_shape(data.classes().front().shape, session.config.data.crop);
  std::vector<int64_t> rows;
  for (const int64_t sample : samples) {
    if (session.model->takes_class_labels()) prompts.labels.push_back(data.label(sample));
    if (!session.draw.use_text) {
      prompts.captions.push_back(data.id(sample));
      continue;
    }
    rows.push_back(data.caption_rows(sample).front());
    prompts.captions.push_back(data.caption(rows.back()));
  }
  if (rows.empty()) return prompts;
  const auto& negative = session.config.sample.negative_prompt;
  prompts.negative_prompt = negative;
  prompts.negative_embeds = negative.empty()
                                ? text_row(data, data.empty_prompt_row(samples.front()))
                                : PromptEncoder(session.config.model.weights)(negative);
  prompts.embeds = [&data, rows = std::move(rows)](int64_t first, int64_t n) {
    std::vector<at::Tensor> embeds;
    for (int64_t i = first; i < first + n; ++i) {
      embeds.push_back(text_row(data, rows[static_cast<size_t>(i)]));
    }
    return torch::cat(embeds);
  };
  return prompts;
}

SamplePrompts choose_prompts(const Session& session) {
  return session.config.sample.prompts.empty() || !session.draw.use_text
             ? prompts_of_samples(session, spread_samples(session, session.config.sample.count))
             : prompts_of_config(session);
}
}  // namespace trireme
