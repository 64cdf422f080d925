#include "trainer/diffusion/sampling_plan.h"

#include <cmath>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace trireme {
namespace {
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

SamplingPlan plan(const NoiseOptions& noise, Prediction prediction, SampleOptions options,
                  std::optional<SamplingRules> rules = {}) {
  return plan_sampling(options, rules.value_or(SamplingRules::of_trireme(noise, prediction)),
                       NoiseSchedule(noise), prediction);
}

SampleOptions with(int64_t steps, SamplerName sampler = SamplerName::kAuto) {
  SampleOptions options;
  options.steps = steps;
  options.sampler = sampler;
  return options;
}

std::vector<double> times(const SamplingPlan& plan) {
  std::vector<double> result;
  for (const auto& step : plan.steps) result.push_back(step.time);
  return result;
}

TEST(SamplingPlanTest, LeadsFromTheEndWithoutASchedulerConfig) {
  EXPECT_THAT(times(plan({}, Prediction::kEpsilon, with(4))), ElementsAre(751, 501, 251, 1));
  EXPECT_EQ(times(plan({}, Prediction::kEpsilon, with(1000))).front(), 999);
}

TEST(SamplingPlanTest, TrailsWithoutTerminalSignalUnlessEpsilon) {
  NoiseOptions noise;
  noise.rescale_zero_terminal_snr = true;
  EXPECT_THAT(times(plan(noise, Prediction::kVPrediction, with(4))),
              ElementsAre(999, 749, 499, 249));
  EXPECT_THAT(times(plan(noise, Prediction::kEpsilon, with(4))), ElementsAre(751, 501, 251, 1));
}

TEST(SamplingPlanTest, TheConfigurationOverrulesTheSchedulerConfig) {
  SampleOptions options = with(4);
  options.timestep_spacing = TimestepSpacing::kLinspace;
  EXPECT_THAT(times(plan({}, Prediction::kEpsilon, options)), ElementsAre(999, 666, 333, 0));
}

TEST(SamplingPlanTest, EndsWithoutNoiseOnAFallingPath) {
  for (const auto sampler : {SamplerName::kDdpm, SamplerName::kEuler, SamplerName::kEulerAncestral,
                             SamplerName::kHeun, SamplerName::kDpmpp2m}) {
    const auto found = plan({}, Prediction::kEpsilon, with(9, sampler));
    EXPECT_EQ(found.steps.back().to.spread, 0.0);
    for (const auto& step : found.steps) {
      EXPECT_LT(step.to.spread, step.from.spread);
      EXPECT_NEAR(std::hypot(step.from.signal, step.from.spread), 1.0, 1e-12);
    }
  }
}

TEST(SamplingPlanTest, KarrasSigmasAreEvenlySpacedInTheSeventhRoot) {
  SampleOptions options = with(8, SamplerName::kEuler);
  options.sigmas = SigmaSpacing::kKarras;
  const auto found = plan({}, Prediction::kEpsilon, options);
  const auto root = [&](size_t i) {
    const auto& level = found.steps[i].from;
    return std::pow(level.spread / level.signal, 1 / 7.0);
  };
  for (size_t i = 2; i < 8; ++i) EXPECT_NEAR(root(i) - root(i - 1), root(1) - root(0), 1e-9);
}

TEST(SamplingPlanTest, RefusesWhatDoesNotGoTogether) {
  EXPECT_THAT([] { (void)plan({}, Prediction::kFlow, with(30, SamplerName::kDdim)); },
              ThrowsMessage<UsageError>(HasSubstr("flow_euler")));
  EXPECT_THAT([] { (void)plan({}, Prediction::kEpsilon, with(30, SamplerName::kFlowEuler)); },
              ThrowsMessage<UsageError>(HasSubstr("flow_euler")));
  EXPECT_THAT([] { (void)plan({}, Prediction::kEpsilon, with(1001)); },
              ThrowsMessage<UsageError>(HasSubstr("sample.steps")));
}
}  // namespace
}  // namespace trireme
