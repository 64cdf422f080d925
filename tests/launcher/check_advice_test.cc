#include "launcher/check_advice.h"

#include <gmock/gmock.h>

namespace trireme {
namespace {
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Settings that nothing is to be said against.
Config sound() {
  Config config;
  config.run.steps = 2000;
  config.batch.global = 64;
  config.data.caption_dropout = 0.1;
  config.data.validation_fraction = 0.05;
  return config;
}

std::vector<std::string> advice_of(const Config& config, int64_t samples = 10000,
                                   int64_t validation = 500) {
  return advise(config, {.plan = plan_run(config, 1, samples),
                         .num_training = samples,
                         .num_distinct = samples,
                         .num_validation = validation});
}

TEST(CheckAdviceTest, SoundSettingsPassInSilence) { EXPECT_THAT(advice_of(sound()), IsEmpty()); }

TEST(CheckAdviceTest, ALearningRateFarFromItsReference) {
  Config config = sound();
  config.optim.lr_base_batch = 4;
  EXPECT_THAT(advice_of(config), Contains(HasSubstr("scaled by 16")));
  config.optim.lr_scaling = LrScaling::kSqrt;
  EXPECT_THAT(advice_of(config), IsEmpty());
  config.optim.lr_base_batch = 1;
  EXPECT_THAT(advice_of(config), Contains(HasSubstr("64 times as large")));
}

TEST(CheckAdviceTest, AWarmUpThatIsLongerThanTheRun) {
  Config config = sound();
  config.lr_schedule.warmup_steps = 2000;
  EXPECT_THAT(advice_of(config), Contains(HasSubstr("not shorter than the run")));
  config.lr_schedule.warmup_steps = 0;
  config.lr_schedule.warmup_samples = 64 * 1500;
  EXPECT_THAT(advice_of(config), Contains(HasSubstr("more than half of the run")));
}

TEST(CheckAdviceTest, SmallDataAndManyEpochs) {
  EXPECT_THAT(advice_of(sound(), 900), Contains(HasSubstr("overfitting")));
  EXPECT_THAT(advice_of(sound(), 40), Contains(HasSubstr("fewer samples (40")));
  EXPECT_THAT(advice_of(sound(), 10000, 0), Contains(HasSubstr("no validation data")));
}

TEST(CheckAdviceTest, StrongDecay) {
  Config config = sound();
  config.optim.lr = 1e-2;
  config.optim.weight_decay = 0.1;
  EXPECT_THAT(advice_of(config), Contains(HasSubstr("undoes the base model")));
  config.run.steps = 200;
  EXPECT_THAT(advice_of(config), Contains(HasSubstr("strong for a learning rate")));
}

TEST(CheckAdviceTest, ZeroTerminalSnrWithoutVPrediction) {
  Config config = sound();
  config.noise.rescale_zero_terminal_snr = true;
  for (const auto prediction : {Prediction::kEpsilon, Prediction::kSample, Prediction::kFlow}) {
    config.objective.prediction = prediction;
    EXPECT_THAT(advice_of(config), Contains(HasSubstr("rescale_zero_terminal_snr")));
  }
  config.objective.prediction = Prediction::kVPrediction;
  EXPECT_THAT(advice_of(config), IsEmpty());
}

TEST(CheckAdviceTest, WhatComesAfterTheEnd) {
  Config config = sound();
  config.ema.decay = 0.9999;
  config.eval.every_steps = 5000;
  config.batch.grow_at = {1000000};
  config.batch.grow_to = {128};
  const auto advice = advice_of(config);
  EXPECT_THAT(advice, Contains(HasSubstr("ema.decay")));
  EXPECT_THAT(advice, Contains(HasSubstr("eval.every_steps")));
  EXPECT_THAT(advice, Contains(HasSubstr("batch.grow_to")));
}

TEST(CheckAdviceTest, TotalsFollowAGrowingBatch) {
  Config config = sound();
  config.run.steps = 10;
  config.lr_schedule = {.name = LrScheduleName::kConstant, .warmup_steps = 0};
  config.optim.lr = 1.0;
  config.optim.lr_base_batch = 64;
  config.batch.grow_at = {256};
  config.batch.grow_to = {128};
  const LrTotals totals = total_learning_rates(config.optim, plan_run(config, 1, 1000));
  EXPECT_DOUBLE_EQ(totals.peak, 2.0);
  EXPECT_DOUBLE_EQ(totals.sum, 4 * 1.0 + 6 * 2.0);
}
}  // namespace
}  // namespace trireme
