#pragma once
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/config.h"

namespace trireme {

// A discrete-time noise schedule: betas, cumulative products of alphas, SNR (Ho et al., 2020). The
// numbers are those of diffusers' schedulers to the last bit, whose float32 roundings are part of
// what a model was trained with; from there on everything is in double (docs/noise.md). For flow it
// is only the time scale.
class NoiseSchedule {
 public:
  // Throws UsageError for options that make no schedule.
  explicit NoiseSchedule(const NoiseOptions& options);

  [[nodiscard]] int64_t num_timesteps() const noexcept {
    return static_cast<int64_t>(betas_.size());
  }
  [[nodiscard]] const std::vector<double>& betas() const noexcept { return betas_; }
  [[nodiscard]] const std::vector<double>& alphas_cumprod() const noexcept {
    return alphas_cumprod_;
  }
  // alphas_cumprod / (1 - alphas_cumprod). REQUIRES: 0 <= timestep < num_timesteps().
  [[nodiscard]] double snr(int64_t timestep) const;
  // Of squaredcos_cap_v2 betas.
  [[nodiscard]] bool is_squared_cosine() const noexcept { return is_squared_cosine_; }
  // The last timestep holds no signal at all (Lin et al., 2024).
  [[nodiscard]] bool has_zero_terminal_snr() const noexcept {
    return alphas_cumprod_.back() == 0.0;
  }

 private:
  std::vector<double> betas_;
  std::vector<double> alphas_cumprod_;
  bool is_squared_cosine_ = false;
};

// A forward pass's inputs and target.
struct NoisedBatch {
  at::Tensor latents;        // (N, C, H, W)
  at::Tensor model_times;    // (N) what the model takes as timestep
  at::Tensor target;         // (N, C, H, W)
  at::Tensor weights;        // (N) float32, per-sample loss weight (min-SNR); undefined: 1
  double huber_delta = 0.0;  // Of the loss; 0: squares.
};

// Epsilon, v (Salimans and Ho, 2022), sample: x_t = sqrt(a) x_0 + sqrt(1 - a) n. Flow (Lipman et
// al., 2023): x = (1 - s) x_0 + s n, target n - x_0, time 1000 s. Weights by min-SNR (Hang et al.,
// 2023). latents, noise: (N, C, H, W); timesteps, uniforms: on the host, (N). Throws UsageError for
// min-SNR with flow, which has no discrete SNR.
[[nodiscard]] NoisedBatch add_noise(const NoiseSchedule& schedule,
                                    const ObjectiveOptions& objective, const at::Tensor& latents,
                                    const at::Tensor& noise, const std::vector<int64_t>& timesteps,
                                    const std::vector<double>& uniforms);

// Throws UsageError for combinations that have no meaning: min-SNR weighting with flow, which has
// no SNR, or with epsilon where the last timestep has none (Lin et al., 2024). At set-up.
void validate_objective(const ObjectiveOptions& objective, const NoiseSchedule& schedule);

// The min-SNR weight of a sample; 1 where objective.snr_gamma is 0. Throws UsageError for flow.
[[nodiscard]] double min_snr_weight(const ObjectiveOptions& objective, double snr);

// Each sample's loss: mean over its own C, H, W of the squared error, or of Huber's loss as
// torch.nn.HuberLoss has it (half the square up to delta), times its weight. (N), float32.
[[nodiscard]] at::Tensor sample_losses(const at::Tensor& prediction, const NoisedBatch& batch);
}  // namespace trireme
