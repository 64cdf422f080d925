#include "study/statistics.h"

#include <array>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "core/normal_quantile.h"

namespace trireme {
namespace {
TEST(StatisticsTest, StudentQuantilesAreThoseOfTheTables) {
  EXPECT_NEAR(student_t_quantile(0.975, 1), 12.7062, 1e-3);
  EXPECT_NEAR(student_t_quantile(0.975, 2), 4.30265, 1e-4);
  EXPECT_NEAR(student_t_quantile(0.975, 3), 3.18245, 1e-4);
  EXPECT_NEAR(student_t_quantile(0.975, 10), 2.22814, 1e-4);
  EXPECT_NEAR(student_t_quantile(0.95, 29), 1.69913, 1e-4);
  EXPECT_NEAR(student_t_quantile(0.025, 5), -2.57058, 1e-4);
  EXPECT_NEAR(normal_quantile(0.975), 1.959964, 1e-6);
}

TEST(StatisticsTest, QuantilesLieBetweenOrderStatistics) {
  const std::array<double, 5> values = {5, 1, 4, 2, 3};
  EXPECT_DOUBLE_EQ(quantile_of(values, 0.0), 1.0);
  EXPECT_DOUBLE_EQ(quantile_of(values, 0.5), 3.0);
  EXPECT_DOUBLE_EQ(quantile_of(values, 0.625), 3.5);
  EXPECT_DOUBLE_EQ(quantile_of(values, 1.0), 5.0);
}

TEST(StatisticsTest, IntervalOfTheMeanIsStudents) {
  const std::array<double, 3> values = {1, 2, 3};
  const auto result = mean_with_interval(values);
  EXPECT_DOUBLE_EQ(result.mean, 2.0);
  EXPECT_NEAR(result.interval.high, 2.0 + 4.30265 / std::sqrt(3.0), 1e-4);
  const std::array<double, 1> one = {7};
  EXPECT_TRUE(std::isinf(mean_with_interval(one).interval.high));
}

TEST(StatisticsTest, ALineThroughPointsOnALineHasNoSpread) {
  const std::array<double, 4> x = {0, 1, 2, 5};
  const std::array<double, 4> y = {1, 3, 5, 11};
  const Line line = fit_line(x, y);
  EXPECT_NEAR(line.slope, 2.0, 1e-12);
  EXPECT_NEAR(line.intercept, 1.0, 1e-12);
  EXPECT_NEAR(line.slope_interval.high - line.slope_interval.low, 0.0, 1e-9);
}

TEST(StatisticsTest, ResamplingIsTheSameEachTimeAndUniform) {
  ResamplingRandom first(7);
  ResamplingRandom second(7);
  std::array<int, 10> counts = {};
  double sum = 0.0;
  double squares = 0.0;
  constexpr int kDraws = 100000;
  for (int i = 0; i < kDraws; ++i) {
    const size_t index = first.index(10);
    ASSERT_EQ(index, second.index(10));
    ++counts.at(index);
    const double normal = first.normal();
    ASSERT_EQ(normal, second.normal());
    sum += normal;
    squares += normal * normal;
  }
  for (const int count : counts) EXPECT_NEAR(count, kDraws / 10, 400);
  EXPECT_NEAR(sum / kDraws, 0.0, 0.015);
  EXPECT_NEAR(squares / kDraws, 1.0, 0.02);
}
}  // namespace
}  // namespace trireme
