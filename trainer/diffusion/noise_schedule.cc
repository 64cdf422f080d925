#include "trainer/diffusion/noise_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "core/error.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr int64_t kTimestepsMax = 1'000'000;
constexpr double kFlowTimeScale = 1000.0;

// The continuous cumulative products that diffusers' betas_for_alpha_bar knows, of t in [0, 1]:
// Glide's cosine (Nichol and Dhariwal, 2021), exp (Crowson's k-diffusion), laplace.
double squared_cosine(double t) {
  const double c = std::cos((t + 0.008) / 1.008 * std::numbers::pi / 2);
  return c * c;
}
double exponential(double t) { return std::exp(-12.0 * t); }
double laplace(double t) {
  const double log_snr =
      -0.5 * std::copysign(1.0, 0.5 - t) * std::log(1 - 2 * std::abs(0.5 - t) + 1e-6);
  const double snr = std::exp(log_snr);
  return std::sqrt(snr / (1 + snr));
}

// Betas whose products follow `alpha_bar`, each at most 0.999.
at::Tensor betas_for_alpha_bar(int64_t timesteps, double (*alpha_bar)(double)) {
  std::vector<double> betas(static_cast<size_t>(timesteps));
  const auto n = static_cast<double>(timesteps);
  for (int64_t i = 0; i < timesteps; ++i) {
    const auto t = static_cast<double>(i);
    betas[static_cast<size_t>(i)] = std::min(1 - alpha_bar((t + 1) / n) / alpha_bar(t / n), 0.999);
  }
  return torch::tensor(betas, torch::kDouble).to(torch::kFloat);
}

at::Tensor make_betas(const NoiseOptions& options) {
  if (!options.trained_betas.empty()) {
    return torch::tensor(options.trained_betas, torch::kDouble).to(torch::kFloat);
  }
  const double start = options.beta_start;
  const double end = options.beta_end;
  switch (options.schedule) {
    case BetaSchedule::kLinear:
      return torch::linspace(start, end, options.timesteps, torch::kFloat);
    case BetaSchedule::kScaledLinear:
      return torch::linspace(std::sqrt(start), std::sqrt(end), options.timesteps, torch::kFloat)
          .square();
    case BetaSchedule::kSquaredCosCapV2:
      return betas_for_alpha_bar(options.timesteps, squared_cosine);
    case BetaSchedule::kExp:
      return betas_for_alpha_bar(options.timesteps, exponential);
    case BetaSchedule::kLaplace:
      return betas_for_alpha_bar(options.timesteps, laplace);
    case BetaSchedule::kSigmoid:
      return torch::linspace(-6, 6, options.timesteps, torch::kFloat).sigmoid() * (end - start) +
             start;
  }
  throw InternalError("a beta schedule without betas");
}

// Algorithm 1 of Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed" (2024).
at::Tensor rescale_to_zero_terminal_snr(const at::Tensor& betas) {
  at::Tensor root = torch::cumprod(1.0 - betas, 0).sqrt();
  const at::Tensor first = root[0].clone();
  const at::Tensor last = root[-1].clone();
  root -= last;
  root *= first / (first - last);
  const at::Tensor alphas_bar = root.square();
  const at::Tensor ratios = alphas_bar.slice(0, 1) / alphas_bar.slice(0, 0, -1);
  return 1 - torch::cat({alphas_bar.slice(0, 0, 1), ratios});
}

std::vector<double> to_vector(const at::Tensor& values) {
  const at::Tensor doubles = values.to(torch::kDouble).contiguous();
  const auto* data = doubles.const_data_ptr<double>();
  return {data, data + doubles.numel()};
}

void validate(const NoiseOptions& options) {
  if (options.timesteps < 1 || options.timesteps > kTimestepsMax) {
    throw UsageError("noise.timesteps = " + std::to_string(options.timesteps) +
                     " is not in 1 ... " + std::to_string(kTimestepsMax) + ".");
  }
  if (!options.trained_betas.empty()) {
    const auto num_betas = static_cast<int64_t>(options.trained_betas.size());
    if (num_betas != options.timesteps) {
      throw UsageError("noise.trained_betas has " + std::to_string(num_betas) +
                       " numbers, but noise.timesteps is " + std::to_string(options.timesteps) +
                       ". They must agree.");
    }
    for (const double beta : options.trained_betas) {
      if (beta > 0 && beta < 1) continue;
      throw UsageError("noise.trained_betas holds " + std::to_string(beta) +
                       ", which is not between 0 and 1.");
    }
  }
  const bool uses_range =
      options.trained_betas.empty() && options.schedule != BetaSchedule::kSquaredCosCapV2 &&
      options.schedule != BetaSchedule::kExp && options.schedule != BetaSchedule::kLaplace;
  if (uses_range &&
      !(options.beta_start > 0 && options.beta_start <= options.beta_end && options.beta_end < 1)) {
    throw UsageError("noise.beta_start = " + std::to_string(options.beta_start) +
                     " and noise.beta_end = " + std::to_string(options.beta_end) +
                     " must satisfy 0 < beta_start <= beta_end < 1.");
  }
  if (options.rescale_zero_terminal_snr && options.timesteps < 2) {
    throw UsageError("noise.rescale_zero_terminal_snr needs noise.timesteps of at least 2.");
  }
}

// Through page-locked memory: the host need not wait for the device.
at::Tensor send(const at::Tensor& host, const at::Device& device) {
  return device.is_cpu() ? host : host.pin_memory().to(device, /*non_blocking=*/true);
}

// One factor a sample, shaped to multiply (N, C, H, W).
at::Tensor factors(const std::vector<double>& values, const at::Tensor& like) {
  return send(torch::tensor(values, torch::kDouble).to(torch::kFloat), like.device())
      .view({-1, 1, 1, 1});
}

NoisedBatch flow_batch(const at::Tensor& latents, const at::Tensor& noise,
                       const std::vector<double>& uniforms) {
  std::vector<double> signal(uniforms.size());
  std::vector<double> times(uniforms.size());
  for (size_t i = 0; i < uniforms.size(); ++i) {
    signal[i] = 1 - uniforms[i];
    times[i] = kFlowTimeScale * uniforms[i];
  }
  return {.latents = factors(signal, latents) * latents + factors(uniforms, latents) * noise,
          .model_times = factors(times, latents).view({-1}),
          .target = noise - latents,
          .weights = {},
          .huber_delta = 0.0};
}
}  // namespace

NoiseSchedule::NoiseSchedule(const NoiseOptions& options) {
  validate(options);
  is_squared_cosine_ = options.schedule == BetaSchedule::kSquaredCosCapV2;
  at::Tensor betas = make_betas(options);
  if (options.rescale_zero_terminal_snr) betas = rescale_to_zero_terminal_snr(betas);
  betas_ = to_vector(betas);
  alphas_cumprod_ = to_vector(torch::cumprod(1.0 - betas, 0));
}

double NoiseSchedule::snr(int64_t timestep) const {
  check(timestep >= 0 && timestep < num_timesteps(), "a timestep within the noise schedule");
  const double alpha = alphas_cumprod_[static_cast<size_t>(timestep)];
  return alpha / (1 - alpha);
}

void validate_objective(const ObjectiveOptions& objective, const NoiseSchedule& schedule) {
  if (objective.snr_gamma <= 0) return;
  (void)min_snr_weight(objective, 1.0);
  if (objective.prediction == Prediction::kEpsilon && schedule.has_zero_terminal_snr()) {
    throw UsageError(
        "objective.snr_gamma (min-SNR weighting) with objective.prediction = \"epsilon\" is not "
        "defined at a terminal SNR of zero (noise.rescale_zero_terminal_snr): its weight divides "
        "by "
        "the SNR. Use prediction = \"v_prediction\", or set snr_gamma = 0.");
  }
}

double min_snr_weight(const ObjectiveOptions& objective, double snr) {
  const double gamma = objective.snr_gamma;
  if (gamma <= 0) return 1.0;
  switch (objective.prediction) {
    case Prediction::kEpsilon:
      return snr <= gamma ? 1.0 : gamma / snr;  // The limit at zero SNR is 1.
    case Prediction::kVPrediction:
      return std::min(snr, gamma) / (snr + 1);
    case Prediction::kSample:
      return std::min(snr, gamma);
    case Prediction::kFlow:
      break;
  }
  throw UsageError(
      "objective.snr_gamma (min-SNR weighting) is not defined for objective.prediction = \"flow\". "
      "Set snr_gamma = 0.");
}

NoisedBatch add_noise(const NoiseSchedule& schedule, const ObjectiveOptions& objective,
                      const at::Tensor& latents, const at::Tensor& noise,
                      const std::vector<int64_t>& timesteps, const std::vector<double>& uniforms) {
  const auto num_samples = static_cast<size_t>(latents.size(0));
  const bool is_flow = objective.prediction == Prediction::kFlow;
  check((is_flow ? uniforms.size() : timesteps.size()) == num_samples, "one time a sample");
  if (is_flow) {
    (void)min_snr_weight(objective, 1.0);
    NoisedBatch batch = flow_batch(latents, noise, uniforms);
    batch.huber_delta = objective.loss == LossName::kHuber ? objective.huber_delta : 0.0;
    return batch;
  }
  std::vector<double> signal(num_samples);
  std::vector<double> spread(num_samples);
  std::vector<double> weights(num_samples);
  for (size_t i = 0; i < num_samples; ++i) {
    weights[i] = min_snr_weight(objective, schedule.snr(timesteps[i]));
    const double alpha = schedule.alphas_cumprod()[static_cast<size_t>(timesteps[i])];
    signal[i] = std::sqrt(alpha);
    spread[i] = std::sqrt(1 - alpha);
  }
  const at::Tensor signal_factor = factors(signal, latents);
  const at::Tensor noise_factor = factors(spread, latents);
  NoisedBatch batch;
  batch.huber_delta = objective.loss == LossName::kHuber ? objective.huber_delta : 0.0;
  batch.latents = signal_factor * latents + noise_factor * noise;  // (N, C, H, W)
  batch.model_times = send(torch::tensor(timesteps, torch::kLong), latents.device());
  switch (objective.prediction) {
    case Prediction::kEpsilon:
      batch.target = noise;
      break;
    case Prediction::kVPrediction:
      batch.target = signal_factor * noise - noise_factor * latents;
      break;
    default:
      batch.target = latents;
  }
  if (objective.snr_gamma > 0) batch.weights = factors(weights, latents).view({-1});
  return batch;
}

at::Tensor sample_losses(const at::Tensor& prediction, const NoisedBatch& batch) {
  const at::Tensor output = prediction.to(torch::kFloat);  // (N, C, H, W)
  const at::Tensor errors =
      batch.huber_delta > 0
          ? torch::huber_loss(output, batch.target, at::Reduction::None, batch.huber_delta)
          : (output - batch.target).square();
  const at::Tensor losses = errors.flatten(1).mean(1);  // (N)
  return batch.weights.defined() ? losses * batch.weights : losses;
}
}  // namespace trireme
