#include "trainer/diffusion/ddim.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "trainer/torch_api.h"

#include "core/error.h"

namespace trireme {
namespace {
constexpr double kFlowTimeScale = 1000.0;
constexpr double kSignalMin = 0x1p-24;  // Below it x_0 cannot be told from the noise.

// Epsilon says nothing where there is no signal left, so it never starts from there.
bool uses_trailing_spacing(const NoiseSchedule& schedule, Prediction prediction) {
  return schedule.has_zero_terminal_snr() && prediction != Prediction::kEpsilon;
}

std::vector<int64_t> leading_timesteps(int64_t num_timesteps, int64_t steps) {
  const int64_t stride = num_timesteps / steps;
  std::vector<int64_t> timesteps;
  for (int64_t i = steps - 1; i >= 0; --i) {
    timesteps.push_back(std::min(i * stride + 1, num_timesteps - 1));
  }
  return timesteps;
}

std::vector<int64_t> trailing_timesteps(int64_t num_timesteps, int64_t steps) {
  const auto top = static_cast<double>(num_timesteps);
  const double stride = top - (top - top / static_cast<double>(steps));  // As numpy's arange steps.
  std::vector<int64_t> timesteps;
  for (int64_t i = 0; i < steps; ++i) {
    const double place = std::nearbyint(top - static_cast<double>(i) * stride);
    timesteps.push_back(std::max<int64_t>(static_cast<int64_t>(place) - 1, 0));
  }
  return timesteps;
}

at::Tensor concat(const at::Tensor& unconditional, const at::Tensor& conditional) {
  if (!conditional.defined()) return {};
  return torch::cat({unconditional.defined() ? unconditional : conditional, conditional});
}

// The model's output under classifier-free guidance, both halves in one forward pass.
class GuidedModel {
 public:
  GuidedModel(DiffusionModel& model, double guidance, const Condition& condition,
              const Condition& unconditional)
      : model_(model), guidance_(guidance), condition_(condition) {
    is_guided_ = guidance != 1.0 && model.cross_attention_dim() > 0 &&
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

  // x: (N, C, H, W); time: 0-d.
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& time) {
    const int64_t rows = is_guided_ ? 2 * x.size(0) : x.size(0);
    const at::Tensor input = is_guided_ ? torch::cat({x, x}) : x;
    at::Tensor output =
        model_.forward(input, time.expand({rows}).contiguous(), condition_, std::nullopt)
            .to(x.scalar_type());
    if (!is_guided_) return output;
    const auto halves = output.chunk(2);
    return halves[0] + guidance_ * (halves[1] - halves[0]);
  }

 private:
  DiffusionModel& model_;
  double guidance_;
  Condition condition_;
  bool is_guided_ = false;
};

// One step from signal share `alpha` to `alpha_next` (equation 12 of Song et al., 2021, eta = 0).
at::Tensor ddim_step(Prediction prediction, const at::Tensor& x, const at::Tensor& output,
                     double alpha, double alpha_next) {
  const double signal = std::sqrt(alpha);
  const double spread = std::sqrt(1 - alpha);
  at::Tensor x_0;
  at::Tensor noise;
  switch (prediction) {
    case Prediction::kEpsilon:
      x_0 = (x - spread * output) / std::sqrt(std::max(alpha, kSignalMin));
      noise = output;
      break;
    case Prediction::kVPrediction:
      x_0 = signal * x - spread * output;
      noise = signal * output + spread * x;
      break;
    default:
      x_0 = output;
      noise = (x - signal * output) / std::sqrt(std::max(1 - alpha, kSignalMin));
  }
  return std::sqrt(alpha_next) * x_0 + std::sqrt(1 - alpha_next) * noise;
}

at::Tensor euler_flow(GuidedModel& guided, int64_t steps, int64_t num_timesteps, at::Tensor x,
                      const std::function<void(int64_t)>& progress) {
  const double last = 1.0 / static_cast<double>(num_timesteps);
  const auto sigma = [&](int64_t i) {
    if (i == steps) return 0.0;
    if (steps == 1) return 1.0;
    return 1.0 + (last - 1.0) * static_cast<double>(i) / static_cast<double>(steps - 1);
  };
  for (int64_t i = 0; i < steps; ++i) {
    const at::Tensor time =
        torch::full({}, kFlowTimeScale * sigma(i), torch::dtype(torch::kFloat).device(x.device()));
    x = x + (sigma(i + 1) - sigma(i)) * guided(x, time);
    if (progress) progress(i + 1);
  }
  return x;
}
}  // namespace

std::vector<int64_t> ddim_timesteps(const NoiseSchedule& schedule, Prediction prediction,
                                    int64_t steps) {
  const int64_t num_timesteps = schedule.num_timesteps();
  if (steps < 1 || steps > num_timesteps) {
    throw UsageError("sample.steps = " + std::to_string(steps) + " is not in 1 ... " +
                     std::to_string(num_timesteps) + ", the timesteps of the noise schedule.");
  }
  return uses_trailing_spacing(schedule, prediction) ? trailing_timesteps(num_timesteps, steps)
                                                     : leading_timesteps(num_timesteps, steps);
}

at::Tensor ddim_sample(DiffusionModel& model, const NoiseSchedule& schedule, Prediction prediction,
                       const SamplerOptions& options, const at::Tensor& noise,
                       const Condition& condition, const Condition& unconditional,
                       const std::function<void(int64_t step)>& progress) {
  const torch::NoGradGuard no_grad;
  const auto timesteps = ddim_timesteps(schedule, prediction, options.steps);
  GuidedModel guided(model, options.guidance, condition, unconditional);
  if (prediction == Prediction::kFlow) {
    return euler_flow(guided, options.steps, schedule.num_timesteps(), noise, progress);
  }
  const auto& alphas = schedule.alphas_cumprod();
  const int64_t stride = schedule.num_timesteps() / options.steps;
  at::Tensor x = noise;  // (N, C, H, W)
  for (size_t i = 0; i < timesteps.size(); ++i) {
    const int64_t t = timesteps[i];
    const at::Tensor time = torch::full({}, t, torch::dtype(torch::kLong).device(x.device()));
    const auto next = static_cast<size_t>(std::max<int64_t>(t - stride, 0));
    x = ddim_step(prediction, x, guided(x, time), alphas[static_cast<size_t>(t)], alphas[next]);
    if (progress) progress(static_cast<int64_t>(i) + 1);
  }
  return x;
}
}  // namespace trireme
