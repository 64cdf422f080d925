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

// Glide's cosine schedule (Nichol and Dhariwal, 2021), capped at 0.999.
at::Tensor squared_cosine_betas(int64_t timesteps) {
  const auto alpha_bar = [](double t) {
    const double c = std::cos((t + 0.008) / 1.008 * std::numbers::pi / 2);
    return c * c;
  };
  std::vector<double> betas(static_cast<size_t>(timesteps));
  const auto n = static_cast<double>(timesteps);
  for (int64_t i = 0; i < timesteps; ++i) {
    const auto t = static_cast<double>(i);
    betas[static_cast<size_t>(i)] = std::min(1 - alpha_bar((t + 1) / n) / alpha_bar(t / n), 0.999);
  }
  return torch::tensor(betas, torch::kDouble).to(torch::kFloat);
}

at::Tensor make_betas(const NoiseOptions& options) {
  const double start = options.beta_start;
  const double end = options.beta_end;
  switch (options.schedule) {
    case BetaSchedule::kLinear:
      return torch::linspace(start, end, options.timesteps, torch::kFloat);
    case BetaSchedule::kScaledLinear:
      return torch::linspace(std::sqrt(start), std::sqrt(end), options.timesteps, torch::kFloat)
          .square();
    case BetaSchedule::kSquaredCosCapV2:
      return squared_cosine_betas(options.timesteps);
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
  const bool uses_range = options.schedule != BetaSchedule::kSquaredCosCapV2;
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
          .weights = {}};
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
    return flow_batch(latents, noise, uniforms);
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
  const at::Tensor difference = prediction.to(torch::kFloat) - batch.target;  // (N, C, H, W)
  const at::Tensor losses = difference.square().flatten(1).mean(1);           // (N)
  return batch.weights.defined() ? losses * batch.weights : losses;
}
}  // namespace trireme
