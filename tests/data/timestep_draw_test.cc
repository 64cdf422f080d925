#include "data/timestep_draw.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/normal_quantile.h"

namespace trireme {
namespace {
using Options = TimestepOptions;

TEST(NormalQuantileTest, InvertsTheDistributionFunction) {
  for (const double x : {-8.0, -5.5, -3.0, -1.0, -0.1, 0.0, 1e-9, 0.7, 2.5, 5.0, 6.0}) {
    const double p = 0.5 * std::erfc(-x / std::sqrt(2.0));
    // Above the middle p itself is rounded: dx = dp / density.
    const double density = std::exp(-x * x / 2) / std::sqrt(2 * M_PI);
    const double tolerance = 1e-14 * std::max(1.0, std::abs(x)) + 2e-16 * p / density;
    EXPECT_NEAR(normal_quantile(p), x, tolerance) << x;
  }
}

TEST(TimestepDrawTest, UniformIsTheContract) {
  const auto draw = draw_timestep({}, 42, {.sample = 7, .epoch = 0}, {});
  EXPECT_EQ(draw.timestep, 768);
}

TEST(TimestepDrawTest, ARangeCoversItselfAndNothingElse) {
  for (const auto distribution :
       {Options::Distribution::kUniform, Options::Distribution::kLogitNormal}) {
    const Options options{.num_timesteps = 100, .distribution = distribution, .range = {0.2, 0.25}};
    std::vector<int64_t> seen;
    for (int64_t sample = 0; sample < 400; ++sample) {
      const auto draw = draw_timestep(options, 1, {.sample = sample, .epoch = 0}, {});
      EXPECT_TRUE(draw.uniform > 0.2 && draw.uniform < 0.25);
      seen.push_back(draw.timestep);
    }
    std::ranges::sort(seen);
    const auto repeated = std::ranges::unique(seen);
    seen.erase(repeated.begin(), repeated.end());
    EXPECT_THAT(seen, testing::ElementsAre(20, 21, 22, 23, 24));
  }
}

TEST(TimestepDrawTest, LowDiscrepancySpreadsABatchEvenly) {
  const Options options{.sampling = Options::Sampling::kLowDiscrepancy};
  double first = 0.0;
  for (const int64_t batch : {1, 3, 8, 48}) {
    for (const int64_t step : {int64_t{1}, int64_t{2}, int64_t{1} << 33}) {
      std::vector<double> values;
      for (int64_t p = 0; p < batch; ++p) {
        // The sample does not matter, the position does.
        values.push_back(draw_timestep(options, 9, {.sample = p * p, .epoch = 1},
                                       {.step = step, .position = p, .global_batch = batch})
                             .uniform);
      }
      std::ranges::sort(values);
      for (size_t i = 1; i < values.size(); ++i) {
        EXPECT_NEAR(values[i] - values[i - 1], 1.0 / static_cast<double>(batch), 1e-12);
      }
      EXPECT_NE(values[0], first) << "every step has its own offset";
      first = values[0];
    }
  }
}

TEST(TimestepDrawTest, LogitNormalHasItsMedianAndQuartiles) {
  const Options options{.distribution = Options::Distribution::kLogitNormal,
                        .logit_mean = 0.5,
                        .logit_std = 2.0,
                        .sampling = Options::Sampling::kLowDiscrepancy};
  std::vector<double> values;
  constexpr int64_t kCount = 4000;
  for (int64_t p = 0; p < kCount; ++p) {
    values.push_back(
        draw_timestep(options, 3, {}, {.step = 1, .position = p, .global_batch = kCount}).uniform);
  }
  std::ranges::sort(values);
  const auto expected = [](double z) { return 1 / (1 + std::exp(-(0.5 + 2 * z))); };
  EXPECT_NEAR(values[kCount / 2], expected(0.0), 1e-3);
  EXPECT_NEAR(values[kCount / 4], expected(-0.674490), 1e-3);
  EXPECT_NEAR(values[3 * kCount / 4], expected(0.674490), 1e-3);
}
}  // namespace
}  // namespace trireme
