#include "trainer/diffusion/guided_model.h"

#include <optional>

#include "trainer/torch_api.h"

namespace trireme {
namespace {
at::Tensor concat(const at::Tensor& unconditional, const at::Tensor& conditional) {
  if (!conditional.defined()) return {};
  return torch::cat({unconditional.defined() ? unconditional : conditional, conditional});
}

// Brings the spread of a sample's guided output back to that of its conditional one.
at::Tensor rescaled(const at::Tensor& guided, const at::Tensor& conditional, double phi) {
  const auto spread = [](const at::Tensor& x) {
    return x.flatten(1).std(1, /*unbiased=*/true).view({-1, 1, 1, 1});
  };
  return phi * (guided * (spread(conditional) / spread(guided))) + (1 - phi) * guided;
}
}  // namespace

GuidedModel::GuidedModel(DiffusionModel& model, const GuidanceOptions& options,
                         const Condition& condition, const Condition& unconditional)
    : model_(model), options_(options), condition_(condition) {
  is_guided_ = options.scale != 1.0 && model.cross_attention_dim() > 0 &&
               condition.encoder_hidden_states.defined() &&
               unconditional.encoder_hidden_states.defined();
  if (!is_guided_) return;
  condition_ = {.encoder_hidden_states =
                    concat(unconditional.encoder_hidden_states, condition.encoder_hidden_states),
                .class_labels = concat(unconditional.class_labels, condition.class_labels),
                .pooled_prompt_embeds =
                    concat(unconditional.pooled_prompt_embeds, condition.pooled_prompt_embeds),
                .add_time_ids = concat(unconditional.add_time_ids, condition.add_time_ids)};
}

at::Tensor GuidedModel::operator()(const at::Tensor& x, double time) const {
  const int64_t rows = is_guided_ ? 2 * x.size(0) : x.size(0);
  const at::Tensor times =
      torch::full({rows}, time, torch::dtype(torch::kFloat).device(x.device()));
  at::Tensor output =
      model_.forward(is_guided_ ? torch::cat({x, x}) : x, times, condition_, std::nullopt)
          .to(x.scalar_type());
  if (!is_guided_) return output;
  const auto halves = output.chunk(2);
  const at::Tensor guided = halves[0] + options_.scale * (halves[1] - halves[0]);
  return options_.rescale > 0 ? rescaled(guided, halves[1], options_.rescale) : guided;
}
}  // namespace trireme
