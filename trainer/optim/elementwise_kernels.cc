#include "trainer/optim/elementwise_kernels.h"

#include <cmath>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// Contraction to fused multiply-add would give other bits in the vector body than in the tail, and
// on other processors.
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("O3", "fp-contract=off", "no-trapping-math")
#endif

// Sanitizers and ifunc resolvers do not go together.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define TRIREME_VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define TRIREME_VECTOR_CLONES
#endif

namespace trireme::internal {
namespace {
// The intrinsics' maskz forms keep GCC from warning of its own undefined operands.
//
// Adam by hand for two vector widths: a compiler that minds errno does not vectorise sqrt, and more
// than one pass costs twice the time. Each function updates whole vectors and returns how many
// elements that were; the operations and their order are those of adam_plain.
using AdamFunction = int64_t (*)(const AdamFactors&, float, int64_t, float*, const float*, float*,
                                 float*);

int64_t adam_plain(const AdamFactors& f, float scale, int64_t n, float* params, const float* grads,
                   float* exp_avg, float* exp_avg_sq) {
  for (int64_t i = 0; i < n; ++i) {
    const float p = params[i];
    const float g = grads[i] * scale + f.l2 * p;
    const float m = exp_avg[i] + f.one_minus_beta1 * (g - exp_avg[i]);
    const float v = f.beta2 * exp_avg_sq[i] + f.one_minus_beta2 * (g * g);
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    params[i] = p * f.decay - f.step_size * (m / (std::sqrt(v) * f.inverse_root_bias2 + f.eps));
  }
  return n;
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) int64_t adam_avx512(const AdamFactors& f, float scale, int64_t n,
                                                       float* params, const float* grads,
                                                       float* exp_avg, float* exp_avg_sq) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const __m512 p = _mm512_loadu_ps(params + i);
    const __m512 g = _mm512_loadu_ps(grads + i) * scale + f.l2 * p;
    const __m512 old = _mm512_loadu_ps(exp_avg + i);
    const __m512 m = old + f.one_minus_beta1 * (g - old);
    const __m512 v = f.beta2 * _mm512_loadu_ps(exp_avg_sq + i) + f.one_minus_beta2 * (g * g);
    _mm512_storeu_ps(exp_avg + i, m);
    _mm512_storeu_ps(exp_avg_sq + i, v);
    const __m512 denominator = _mm512_maskz_sqrt_ps(0xffff, v) * f.inverse_root_bias2 + f.eps;
    _mm512_storeu_ps(params + i, p * f.decay - f.step_size * (m / denominator));
  }
  return i;
}

__attribute__((target("avx"))) int64_t adam_avx(const AdamFactors& f, float scale, int64_t n,
                                                float* params, const float* grads, float* exp_avg,
                                                float* exp_avg_sq) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 p = _mm256_loadu_ps(params + i);
    const __m256 g = _mm256_loadu_ps(grads + i) * scale + f.l2 * p;
    const __m256 old = _mm256_loadu_ps(exp_avg + i);
    const __m256 m = old + f.one_minus_beta1 * (g - old);
    const __m256 v = f.beta2 * _mm256_loadu_ps(exp_avg_sq + i) + f.one_minus_beta2 * (g * g);
    _mm256_storeu_ps(exp_avg + i, m);
    _mm256_storeu_ps(exp_avg_sq + i, v);
    const __m256 denominator = _mm256_sqrt_ps(v) * f.inverse_root_bias2 + f.eps;
    _mm256_storeu_ps(params + i, p * f.decay - f.step_size * (m / denominator));
  }
  return i;
}
#endif

AdamFunction choose_adam() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return adam_avx512;
  if (__builtin_cpu_supports("avx")) return adam_avx;
#endif
  return adam_plain;
}

// Squares by hand too: for blocks of 256 a compiler's lanes, added up in memory, take longer than
// the memory read. Partial sums and their order are those of squares_plain.
constexpr int64_t kLanes = 16;
using SquaresFunction = double (*)(const float*, int64_t);

// Adds the squares of values [from, n) to the lanes of their indices.
void add_tail(const float* values, int64_t from, int64_t n, double* lanes) {
  for (int64_t i = from; i < n; ++i) {
    const auto value = static_cast<double>(values[i]);
    lanes[i % kLanes] += value * value;
  }
}

double squares_plain(const float* values, int64_t n) {
  double lanes[kLanes] = {};
  add_tail(values, 0, n, lanes);
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

#if defined(__x86_64__)
__attribute__((target("avx"))) double pairwise_sum(__m256d lanes) {
  const __m128d two = _mm256_castpd256_pd128(lanes) + _mm256_extractf128_pd(lanes, 1);
  return two[0] + two[1];
}

__attribute__((target("avx512f"))) double squares_avx512(const float* values, int64_t n) {
  __m512d low = _mm512_setzero_pd();
  __m512d high = _mm512_setzero_pd();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const __m512d a = _mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(values + i));
    const __m512d b = _mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(values + i + 8));
    low += a * a;
    high += b * b;
  }
  if (i < n) {
    double lanes[kLanes];
    _mm512_storeu_pd(lanes, low);
    _mm512_storeu_pd(lanes + 8, high);
    add_tail(values, i, n, lanes);
    low = _mm512_loadu_pd(lanes);
    high = _mm512_loadu_pd(lanes + 8);
  }
  const __m512d eight = low + high;
  return pairwise_sum(_mm512_maskz_extractf64x4_pd(0xf, eight, 0) +
                      _mm512_maskz_extractf64x4_pd(0xf, eight, 1));
}

__attribute__((target("avx"))) double squares_avx(const float* values, int64_t n) {
  __m256d parts[4] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t part = 0; part < 4; ++part) {
      const __m256d value = _mm256_cvtps_pd(_mm_loadu_ps(values + i + 4 * part));
      parts[part] += value * value;
    }
  }
  if (i < n) {
    double lanes[kLanes];
    for (int64_t part = 0; part < 4; ++part) _mm256_storeu_pd(lanes + 4 * part, parts[part]);
    add_tail(values, i, n, lanes);
    for (int64_t part = 0; part < 4; ++part) parts[part] = _mm256_loadu_pd(lanes + 4 * part);
  }
  return pairwise_sum((parts[0] + parts[2]) + (parts[1] + parts[3]));
}
#endif

SquaresFunction choose_squares() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return squares_avx512;
  if (__builtin_cpu_supports("avx")) return squares_avx;
#endif
  return squares_plain;
}
}  // namespace

void adam_update(const AdamFactors& factors, float scale, int64_t n, float* params,
                 const float* grads, float* exp_avg, float* exp_avg_sq) noexcept {
  const int64_t done = choose_adam()(factors, scale, n, params, grads, exp_avg, exp_avg_sq);
  adam_plain(factors, scale, n - done, params + done, grads + done, exp_avg + done,
             exp_avg_sq + done);
}

TRIREME_VECTOR_CLONES
void sgd_update(const SgdFactors& factors, float scale, int64_t n, float* __restrict params,
                const float* __restrict grads, float* __restrict buffer) noexcept {
  const SgdFactors f = factors;
  for (int64_t i = 0; i < n; ++i) {
    const float p = params[i];
    const float g = grads[i] * scale + f.l2 * p;
    const float b = f.momentum * buffer[i] + g;
    buffer[i] = b;
    params[i] = p - f.lr * (f.own * g + f.look_ahead * b);
  }
}

TRIREME_VECTOR_CLONES
void sgd_update_without_momentum(const SgdFactors& factors, float scale, int64_t n,
                                 float* __restrict params, const float* __restrict grads) noexcept {
  const SgdFactors f = factors;
  for (int64_t i = 0; i < n; ++i) {
    params[i] = params[i] - f.lr * (grads[i] * scale + f.l2 * params[i]);
  }
}

TRIREME_VECTOR_CLONES
void lion_update(const LionFactors& factors, float scale, int64_t n, float* __restrict params,
                 const float* __restrict grads, float* __restrict exp_avg) noexcept {
  const LionFactors f = factors;
  for (int64_t i = 0; i < n; ++i) {
    const float g = grads[i] * scale;
    const float m = exp_avg[i];
    const float direction = f.beta1 * m + f.one_minus_beta1 * g;
    const float sign = direction > 0.0F ? 1.0F : (direction < 0.0F ? -1.0F : 0.0F);
    exp_avg[i] = f.beta2 * m + f.one_minus_beta2 * g;
    params[i] = params[i] * f.decay - f.lr * sign;
  }
}

TRIREME_VECTOR_CLONES
void average_update(float decay, float one_minus_decay, int64_t n, float* __restrict averages,
                    const float* __restrict params) noexcept {
  for (int64_t i = 0; i < n; ++i) averages[i] = decay * averages[i] + one_minus_decay * params[i];
}

double block_sum_of_squares(const float* values, int64_t n) noexcept {
  static const SquaresFunction sum = choose_squares();
  return sum(values, n);
}
}  // namespace trireme::internal
