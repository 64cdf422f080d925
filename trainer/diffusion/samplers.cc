#include "trainer/diffusion/samplers.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr int64_t kFewSteps = 15;  // DPM-Solver ends with a first-order step below it.

// Where there is no signal, x_0 cannot be told from the noise; it stays finite.
double nonzero(double signal) { return signal == 0.0 ? 0x1p-12 : signal; }

double sigma_of(const NoiseLevel& level) { return level.spread / nonzero(level.scale); }

// Half the logarithm of the signal-to-noise ratio.
double lambda_of(const NoiseLevel& level) {
  return std::log(nonzero(level.signal)) - std::log(level.spread);
}

// x_0 as the model's prediction says.
at::Tensor clean(Prediction prediction, const NoiseLevel& at_level, const at::Tensor& x,
                 const at::Tensor& output) {
  const auto [signal, spread, scale] = at_level;
  switch (prediction) {
    case Prediction::kEpsilon:
      return (x - spread * output) / nonzero(signal);
    case Prediction::kVPrediction:
      return signal * x - spread * output;
    case Prediction::kSample:
      return output;
    case Prediction::kFlow:
      return x - spread * output;
  }
  throw InternalError("a prediction without x_0");
}

// The step that keeps the noise and swaps its level: exact where x_0 is right.
at::Tensor first_order(const SamplingStep& step, const at::Tensor& x, const at::Tensor& x_0) {
  const double keep = step.to.spread / step.from.spread;
  return keep * x + (step.to.signal - step.from.signal * keep) * x_0;
}

// The posterior of x at `to` given x and x_0 (Ho et al., equation 7), which is the ancestral step
// as well: k-diffusion's sigma_down and sigma_up are its mean and spread.
at::Tensor ancestral(const SamplingPlan& plan, size_t i, const at::Tensor& x, const at::Tensor& x_0,
                     const SamplerCalls& calls) {
  const SamplingStep& step = plan.steps[i];
  const double alpha = step.from.signal * step.from.signal;
  const double alpha_to = step.to.signal * step.to.signal;
  const double spread_2 = step.from.spread * step.from.spread;
  const double spread_to_2 = step.to.spread * step.to.spread;
  const double beta = 1 - alpha / alpha_to;
  at::Tensor mean = (step.to.signal * beta / spread_2) * x_0 +
                    (std::sqrt(alpha / alpha_to) * spread_to_2 / spread_2) * x;
  const bool is_large = plan.sampler == SamplerName::kDdpm && step.time > 0 &&
                        plan.variance == SamplingRules::Variance::kFixedLarge;
  const double variance = is_large ? beta : beta * spread_to_2 / spread_2;
  if (variance <= 0) return mean;
  return mean + std::sqrt(variance) * calls.noise(static_cast<int64_t>(i) + 1);
}

// Karras et al. (2022), algorithm 1; `x_0` is of the step's beginning.
at::Tensor heun(const SamplingPlan& plan, size_t i, const at::Tensor& x, const at::Tensor& x_0,
                const SamplerCalls& calls) {
  const SamplingStep& step = plan.steps[i];
  at::Tensor predicted = first_order(step, x, x_0);
  if (i + 1 == plan.steps.size() || step.to.spread == 0.0) return predicted;
  const SamplingStep& next = plan.steps[i + 1];
  const at::Tensor x_0_next =
      clean(plan.prediction, step.to, predicted, calls.model(predicted, next.time));
  const double sigma = sigma_of(step.from);
  const double sigma_to = sigma_of(step.to);
  const at::Tensor begin = x / step.from.scale;
  const at::Tensor slope = (begin - x_0) / sigma;
  const at::Tensor slope_to = (predicted / step.to.scale - x_0_next) / sigma_to;
  return step.to.scale * (begin + (0.5 * (sigma_to - sigma)) * (slope + slope_to));
}

// `x_0_before` is the previous step's.
at::Tensor multistep(const SamplingPlan& plan, size_t i, const at::Tensor& x, const at::Tensor& x_0,
                     const at::Tensor& x_0_before) {
  const SamplingStep& step = plan.steps[i];
  const bool is_last = i + 1 == plan.steps.size();
  const bool is_few = static_cast<int64_t>(plan.steps.size()) < kFewSteps;
  if (i == 0 || (is_last && (is_few || step.to.spread == 0.0))) return first_order(step, x, x_0);
  const double width = lambda_of(step.to) - lambda_of(step.from);
  const double width_before = lambda_of(step.from) - lambda_of(plan.steps[i - 1].from);
  const at::Tensor ahead = x_0 + (0.5 * width / width_before) * (x_0 - x_0_before);
  return first_order(step, x, ahead);
}
}  // namespace

at::Tensor run_sampler(const SamplingPlan& plan, const at::Tensor& noise,
                       const SamplerCalls& calls) {
  const torch::NoGradGuard no_grad;
  at::Tensor x = plan.initial_scale * noise;  // (N, C, H, W)
  at::Tensor x_0_before;
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const SamplingStep& step = plan.steps[i];
    const at::Tensor x_0 =
        clean(plan.prediction, step.from, x, calls.model(x, step.time));  // (N, C, H, W)
    switch (plan.sampler) {
      case SamplerName::kDdpm:
      case SamplerName::kEulerAncestral:
        x = ancestral(plan, i, x, x_0, calls);
        break;
      case SamplerName::kHeun:
        x = heun(plan, i, x, x_0, calls);
        break;
      case SamplerName::kDpmpp2m:
        x = multistep(plan, i, x, x_0, x_0_before);
        break;
      default:
        x = first_order(step, x, x_0);
    }
    x_0_before = x_0;
    if (calls.progress) calls.progress(static_cast<int64_t>(i) + 1);
  }
  return x;
}
}  // namespace trireme
