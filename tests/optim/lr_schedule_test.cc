#include "trainer/optim/lr_schedule.h"

#include <cmath>

#include <gmock/gmock.h>

#include "core/error.h"

namespace trireme {
namespace {
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

LrScheduleOptions schedule_of(LrScheduleName name, int64_t warmup, double least = 0.0) {
  LrScheduleOptions options;
  options.name = name;
  options.warmup_steps = warmup;
  options.min_lr_ratio = least;
  return options;
}

TEST(LearningRateTest, WarmsUpFromTheFirstStep) {
  const auto schedule = schedule_of(LrScheduleName::kCosine, 4);
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 2.0, 1, 12), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 2.0, 4, 12), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 2.0, 5, 12), 2.0);
}

TEST(LearningRateTest, CosineAndLinear) {
  // u = 8 of warm-up 4 and 12 steps: p = 1/2.
  EXPECT_DOUBLE_EQ(learning_rate(schedule_of(LrScheduleName::kCosine, 4, 0.2), 1.0, 9, 12), 0.6);
  EXPECT_DOUBLE_EQ(learning_rate(schedule_of(LrScheduleName::kLinear, 4, 0.2), 1.0, 9, 12), 0.6);
  EXPECT_NEAR(learning_rate(schedule_of(LrScheduleName::kCosine, 4), 1.0, 7, 12),
              (1 + std::sqrt(0.5)) / 2, 1e-15);
  EXPECT_DOUBLE_EQ(learning_rate(schedule_of(LrScheduleName::kLinear, 4), 1.0, 12, 12), 0.125);
}

TEST(LearningRateTest, ConstantIgnoresTheMinimum) {
  EXPECT_EQ(learning_rate(schedule_of(LrScheduleName::kConstant, 0, 0.1), 3.0, 99, 100), 3.0);
}

TEST(LearningRateTest, PolynomialHasItsPower) {
  auto schedule = schedule_of(LrScheduleName::kPolynomial, 0);
  schedule.power = 2.0;
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 1.0, 6, 10), 0.25);
}

TEST(LearningRateTest, WsdDecaysOverItsLastFraction) {
  const auto schedule = schedule_of(LrScheduleName::kWsd, 10, 0.1);  // decay_fraction 0.2
  EXPECT_EQ(learning_rate(schedule, 1.0, 11, 100), 1.0);
  EXPECT_EQ(learning_rate(schedule, 1.0, 81, 100), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 1.0, 91, 100), 0.55);
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 1.0, 100, 100), 0.1 + 0.9 * 0.05);
}

TEST(LearningRateTest, CosineRestartsEachCycle) {
  auto schedule = schedule_of(LrScheduleName::kCosineWithRestarts, 4, 0.2);
  schedule.cycles = 2;
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 1.0, 5, 12), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 1.0, 7, 12), 0.6);
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 1.0, 9, 12), 1.0);  // The second cycle begins.
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 1.0, 11, 12), 0.6);
}

TEST(LearningRateTest, InverseSquareRootHalvesAtFourTimescales) {
  auto schedule = schedule_of(LrScheduleName::kInverseSqrt, 10);
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 1.0, 11, 100), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 1.0, 41, 100), 0.5);  // The warm-up is the timescale.
  schedule.timescale = 30;
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 1.0, 101, 200), 0.5);
  schedule.timescale = 0;
  schedule.warmup_steps = 0;
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 1.0, 30001, 50000), 0.5);
}

TEST(LearningRateTest, WarmUpMayOutlastTheRun) {
  for (const auto name : {LrScheduleName::kCosine, LrScheduleName::kWsd}) {
    EXPECT_DOUBLE_EQ(learning_rate(schedule_of(name, 100), 1.0, 10, 10), 0.1);
    EXPECT_DOUBLE_EQ(learning_rate(schedule_of(name, 10), 1.0, 10, 10), 1.0);
    EXPECT_TRUE(std::isfinite(learning_rate(schedule_of(name, 10), 1.0, 11, 10)));
  }
}

OptimOptions optim_of(LrScaling scaling, int64_t base) {
  OptimOptions options;
  options.lr = 1e-4;
  options.lr_base_batch = base;
  options.lr_scaling = scaling;
  return options;
}

TEST(ScaleLearningRateTest, FollowsItsRule) {
  EXPECT_DOUBLE_EQ(scale_learning_rate(optim_of(LrScaling::kLinear, 64), 256).lr, 4e-4);
  EXPECT_DOUBLE_EQ(scale_learning_rate(optim_of(LrScaling::kSqrt, 64), 256).lr, 2e-4);
  auto power = optim_of(LrScaling::kPower, 64);
  power.lr_scaling_power = 0.25;
  EXPECT_DOUBLE_EQ(scale_learning_rate(power, 1024).lr, 2e-4);
  EXPECT_EQ(scale_learning_rate(optim_of(LrScaling::kLinear, 64), 256).rule,
            "linear: 0.0001 x 256/64 = 0.0004");
}

TEST(ScaleLearningRateTest, WithoutABaseBatchNothingIsScaled) {
  const auto scaled = scale_learning_rate(optim_of(LrScaling::kSqrtAdam, 0), 256);
  EXPECT_EQ(scaled.lr, 1e-4);
  EXPECT_EQ(scaled.betas[0], 0.9);
  EXPECT_EQ(scaled.eps, 1e-8);
}

TEST(ScaleLearningRateTest, OnlySqrtAdamTouchesBetas) {
  EXPECT_EQ(scale_learning_rate(optim_of(LrScaling::kSqrt, 64), 256).betas[0], 0.9);
  const auto scaled = scale_learning_rate(optim_of(LrScaling::kSqrtAdam, 64), 256);
  EXPECT_DOUBLE_EQ(scaled.lr, 2e-4);
  EXPECT_NEAR(scaled.betas[0], 0.6, 1e-15);
  EXPECT_NEAR(scaled.betas[1], 0.996, 1e-15);
  EXPECT_DOUBLE_EQ(scaled.eps, 5e-9);
}

TEST(ScaleLearningRateTest, SqrtAdamNamesABetaThatVanishes) {
  EXPECT_THAT([] { (void)scale_learning_rate(optim_of(LrScaling::kSqrtAdam, 1), 11); },
              ThrowsMessage<UsageError>(HasSubstr("sqrt_adam")));
}
}  // namespace
}  // namespace trireme
