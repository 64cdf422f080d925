#include "trainer/diffusion/noise_schedule.h"

#include <cmath>

#include <gmock/gmock.h>

#include "core/error.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::ThrowsMessage;

NoiseOptions two_betas() {
  return {.schedule = BetaSchedule::kLinear, .beta_start = 0.25, .beta_end = 0.5, .timesteps = 2};
}

NoisedBatch noised(Prediction prediction, double gamma, float x, float n, int64_t t, double u) {
  return add_noise(NoiseSchedule(two_betas()), {.prediction = prediction, .snr_gamma = gamma},
                   torch::full({1, 1, 1, 2}, x), torch::full({1, 1, 1, 2}, n), {t}, {u});
}

TEST(NoiseScheduleTest, MultipliesAlphas) {
  const NoiseSchedule schedule(two_betas());
  EXPECT_THAT(schedule.betas(), ElementsAre(0.25, 0.5));
  EXPECT_THAT(schedule.alphas_cumprod(), ElementsAre(0.75, 0.375));
  EXPECT_DOUBLE_EQ(schedule.snr(0), 3.0);
  EXPECT_DOUBLE_EQ(schedule.snr(1), 0.6);
}

TEST(NoiseScheduleTest, KnowsZeroTerminalSnr) {
  NoiseOptions options;
  EXPECT_FALSE(NoiseSchedule(options).has_zero_terminal_snr());
  options.rescale_zero_terminal_snr = true;
  const NoiseSchedule schedule(options);
  EXPECT_TRUE(schedule.has_zero_terminal_snr());
  EXPECT_EQ(schedule.snr(999), 0.0);
}

TEST(NoiseScheduleTest, RefusesNonsense) {
  NoiseOptions options;
  options.timesteps = 0;
  EXPECT_THAT([&] { NoiseSchedule{options}; }, ThrowsMessage<UsageError>(HasSubstr("timesteps")));
  options.timesteps = int64_t{1} << 60;
  EXPECT_THROW(NoiseSchedule{options}, UsageError);
  options.timesteps = 10;
  options.beta_end = 1e-9;
  EXPECT_THAT([&] { NoiseSchedule{options}; }, ThrowsMessage<UsageError>(HasSubstr("beta_end")));
}

TEST(NoiseScheduleTest, AcceptsOneTimestep) {
  for (const auto schedule : {BetaSchedule::kLinear, BetaSchedule::kScaledLinear,
                              BetaSchedule::kSquaredCosCapV2, BetaSchedule::kSigmoid}) {
    NoiseOptions options;
    options.schedule = schedule;
    options.timesteps = 1;
    EXPECT_THAT(NoiseSchedule(options).alphas_cumprod(), SizeIs(1));
  }
}

TEST(AddNoiseTest, MixesBySquareRoots) {
  const auto batch = noised(Prediction::kEpsilon, 0, 2.0F, -1.0F, 1, 0.9);
  const double expected = 2 * std::sqrt(0.375) - std::sqrt(0.625);
  EXPECT_NEAR(batch.latents[0][0][0][0].item<double>(), expected, 1e-6);
  EXPECT_EQ(batch.target[0][0][0][0].item<double>(), -1.0);
  EXPECT_EQ(batch.model_times.item<int64_t>(), 1);
  EXPECT_FALSE(batch.weights.defined());
}

TEST(AddNoiseTest, TargetsVelocityAndSample) {
  const auto velocity = noised(Prediction::kVPrediction, 0, 2.0F, -1.0F, 1, 0.9);
  EXPECT_NEAR(velocity.target[0][0][0][0].item<double>(), -std::sqrt(0.375) - 2 * std::sqrt(0.625),
              1e-6);
  EXPECT_EQ(noised(Prediction::kSample, 0, 2.0F, -1.0F, 1, 0.9).target[0][0][0][1].item<double>(),
            2.0);
}

TEST(AddNoiseTest, FlowIsAStraightLine) {
  const auto batch = noised(Prediction::kFlow, 0, 2.0F, -1.0F, 1, 0.25);
  EXPECT_FLOAT_EQ(batch.latents[0][0][0][0].item<float>(), 1.25F);
  EXPECT_FLOAT_EQ(batch.target[0][0][0][0].item<float>(), -3.0F);
  EXPECT_FLOAT_EQ(batch.model_times.item<float>(), 250.0F);
}

TEST(MinSnrTest, WeightsByPrediction) {
  EXPECT_DOUBLE_EQ(min_snr_weight({.prediction = Prediction::kEpsilon, .snr_gamma = 5}, 20), 0.25);
  EXPECT_DOUBLE_EQ(min_snr_weight({.prediction = Prediction::kEpsilon, .snr_gamma = 5}, 2), 1.0);
  EXPECT_DOUBLE_EQ(min_snr_weight({.prediction = Prediction::kEpsilon, .snr_gamma = 5}, 0), 1.0);
  EXPECT_DOUBLE_EQ(min_snr_weight({.prediction = Prediction::kVPrediction, .snr_gamma = 5}, 9),
                   0.5);
  EXPECT_DOUBLE_EQ(min_snr_weight({.prediction = Prediction::kSample, .snr_gamma = 5}, 9), 5.0);
  EXPECT_DOUBLE_EQ(min_snr_weight({.prediction = Prediction::kFlow, .snr_gamma = 0}, 9), 1.0);
}

TEST(MinSnrTest, IsRefusedForFlow) {
  EXPECT_THAT([] { (void)noised(Prediction::kFlow, 5, 1, 1, 0, 0.5); },
              ThrowsMessage<UsageError>(HasSubstr("objective.snr_gamma")));
}

TEST(SampleLossesTest, AveragesOverASampleAndWeights) {
  NoisedBatch batch;
  batch.target = torch::tensor({1.0F, 3.0F, 0.0F, 0.0F}).view({2, 1, 1, 2});
  const auto prediction = torch::zeros({2, 1, 1, 2});
  EXPECT_TRUE(torch::equal(sample_losses(prediction, batch), torch::tensor({5.0F, 0.0F})));
  batch.weights = torch::tensor({0.5F, 2.0F});
  EXPECT_TRUE(torch::equal(sample_losses(prediction, batch), torch::tensor({2.5F, 0.0F})));
}

}  // namespace
}  // namespace trireme
