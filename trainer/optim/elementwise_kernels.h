#pragma once
#include <cstdint>

// The element-wise updates on host memory: one pass over parameters, gradients and state. Every
// element is computed by the same IEEE operations, without contraction, wherever it lies in a range
// and whatever instructions the processor has: bits do not depend on ranges, threads or vector
// width. Pointers do not overlap; `n` elements each. `scale` multiplies each gradient before
// anything else.
namespace trireme::internal {

struct AdamFactors {
  float beta1 = 0.0F;
  float one_minus_beta1 = 0.0F;
  float beta2 = 0.0F;
  float one_minus_beta2 = 0.0F;
  float step_size = 0.0F;           // lr / (1 - beta1^step)
  float inverse_root_bias2 = 0.0F;  // 1 / sqrt(1 - beta2^step)
  float eps = 0.0F;
  float decay = 1.0F;  // Multiplies the parameter (AdamW).
  float l2 = 0.0F;     // Times the parameter is added to the gradient (Adam).
};
void adam_update(const AdamFactors& factors, float scale, int64_t n, float* params,
                 const float* grads, float* exp_avg, float* exp_avg_sq) noexcept;

struct SgdFactors {
  float lr = 0.0F;
  float momentum = 0.0F;
  float look_ahead = 0.0F;  // momentum with Nesterov, of the gradient: see sgd_update.
  float own = 0.0F;         // Nesterov: direction = own * gradient + look_ahead * buffer.
  float l2 = 0.0F;
};
// buffer = momentum * buffer + gradient; parameter -= lr * (own * gradient + look_ahead * buffer).
void sgd_update(const SgdFactors& factors, float scale, int64_t n, float* params,
                const float* grads, float* buffer) noexcept;

// parameter -= lr * gradient.
void sgd_update_without_momentum(const SgdFactors& factors, float scale, int64_t n, float* params,
                                 const float* grads) noexcept;

struct LionFactors {
  float lr = 0.0F;
  float beta1 = 0.0F;
  float one_minus_beta1 = 0.0F;
  float beta2 = 0.0F;
  float one_minus_beta2 = 0.0F;
  float decay = 1.0F;
};
void lion_update(const LionFactors& factors, float scale, int64_t n, float* params,
                 const float* grads, float* exp_avg) noexcept;

// averages = decay * averages + one_minus_decay * params.
void average_update(float decay, float one_minus_decay, int64_t n, float* averages,
                    const float* params) noexcept;

// Sum of squares in double: sixteen partial sums by index modulo 16, added pairwise at the
// end.
[[nodiscard]] double block_sum_of_squares(const float* values, int64_t n) noexcept;
}  // namespace trireme::internal
