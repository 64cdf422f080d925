#include "trainer/optim/elementwise_kernels.h"

#include <array>
#include <cmath>
#include <vector>

#include <gmock/gmock.h>

namespace trireme::internal {
namespace {
constexpr int64_t kCount = 1003;  // Whole vectors and a tail at every width.

// Values whose products need rounding; exact themselves.
std::vector<float> values(uint32_t seed) {
  std::vector<float> out(kCount);
  for (auto& value : out) {
    seed = seed * 1664525U + 1013904223U;
    value = std::ldexp(static_cast<float>(static_cast<int32_t>(seed) >> 8), -22);
  }
  return out;
}

// One operation, rounded: what a contracted multiply-add is not.
float multiply(float a, float b) {
  volatile float product = a * b;
  return product;
}

TEST(ElementwiseKernelsTest, AdamRoundsEveryOperation) {
  const AdamFactors f{0.9F, 0.1F, 0.99F, 0.01F, 0.003F, 1.7F, 1e-8F, 0.999F, 0.01F};
  const float scale = 0.7F;
  auto params = values(1);
  const auto grads = values(2);
  auto exp_avg = values(3);
  auto exp_avg_sq = values(4);
  for (auto& v : exp_avg_sq) v = std::abs(v);
  std::vector<float> expected;
  for (size_t i = 0; i < kCount; ++i) {
    const float g = multiply(grads[i], scale) + multiply(f.l2, params[i]);
    const float m = exp_avg[i] + multiply(f.one_minus_beta1, g - exp_avg[i]);
    const float v = multiply(f.beta2, exp_avg_sq[i]) + multiply(f.one_minus_beta2, multiply(g, g));
    const float denominator = multiply(std::sqrt(v), f.inverse_root_bias2) + f.eps;
    expected.push_back(multiply(params[i], f.decay) - multiply(f.step_size, m / denominator));
  }
  adam_update(f, scale, kCount, params.data(), grads.data(), exp_avg.data(), exp_avg_sq.data());
  EXPECT_EQ(params, expected);
}

TEST(ElementwiseKernelsTest, SgdLionAndAverageRoundEveryOperation) {
  const auto grads = values(2);
  const auto start = values(1);
  const auto state = values(3);
  std::vector<float> sgd, lion, average;
  const SgdFactors s{.lr = 0.1F, .momentum = 0.9F, .look_ahead = 0.9F, .own = 1.0F, .l2 = 0.01F};
  const LionFactors l{0.01F, 0.9F, 0.1F, 0.99F, 0.01F, 0.999F};
  for (size_t i = 0; i < kCount; ++i) {
    const float g = multiply(grads[i], 0.7F) + multiply(s.l2, start[i]);
    const float b = multiply(s.momentum, state[i]) + g;
    sgd.push_back(start[i] - multiply(s.lr, g + multiply(s.look_ahead, b)));
    const float direction =
        multiply(l.beta1, state[i]) + multiply(l.one_minus_beta1, multiply(grads[i], 0.7F));
    lion.push_back(multiply(start[i], l.decay) - std::copysign(l.lr, direction));
    average.push_back(multiply(0.3F, state[i]) + multiply(0.7F, start[i]));
  }
  auto params = start;
  auto buffer = state;
  sgd_update(s, 0.7F, kCount, params.data(), grads.data(), buffer.data());
  EXPECT_EQ(params, sgd);
  params = start;
  buffer = state;
  lion_update(l, 0.7F, kCount, params.data(), grads.data(), buffer.data());
  EXPECT_EQ(params, lion);
  buffer = state;
  average_update(0.3F, 0.7F, kCount, buffer.data(), start.data());
  EXPECT_EQ(buffer, average);
}

TEST(ElementwiseKernelsTest, SumOfSquaresIsExactWhereDoublesAre) {
  const std::vector<float> threes(kCount, 3.0F);
  EXPECT_EQ(block_sum_of_squares(threes.data(), kCount), 9.0 * kCount);
  EXPECT_EQ(block_sum_of_squares(threes.data(), 0), 0.0);
}

// Bits of norms are part of a trajectory: whatever instructions add the squares, the order is this.
TEST(ElementwiseKernelsTest, SumOfSquaresAddsInTheStatedOrder) {
  constexpr size_t kLanes = 16;
  std::vector<float> values(515);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = std::ldexp(std::sin(static_cast<float>(i)), static_cast<int>(i % 37) - 18);
  }
  for (const size_t n : {1, 7, 15, 16, 17, 31, 32, 255, 256, 257, 512, 515}) {
    std::array<double, kLanes> sums = {};
    for (size_t i = 0; i < n; ++i) {
      sums[i % kLanes] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    }
    for (size_t half = kLanes / 2; half > 0; half /= 2) {
      for (size_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
    }
    EXPECT_EQ(block_sum_of_squares(values.data(), static_cast<int64_t>(n)), sums[0]) << n;
  }
}
}  // namespace
}  // namespace trireme::internal
