#include "trainer/run_plan.h"

#include <gmock/gmock.h>

#include "core/error.h"

namespace trireme {
namespace {
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

Config config_of(int64_t global, int64_t steps) {
  Config config;
  config.batch.global = global;
  config.run.steps = steps;
  return config;
}

TEST(RunPlanTest, EpochsAreRoundedUpToSteps) {
  Config config = config_of(8, 0);
  config.run.epochs = 2.5;
  EXPECT_EQ(plan_run(config, 2, 30).steps, 10);  // 75 samples.
  config.batch.grow_at = {16};
  config.batch.grow_to = {24};
  EXPECT_EQ(plan_run(config, 2, 30).steps, 5);  // 8, 8, 24, 24, 24.
}

TEST(RunPlanTest, AGrowingBatchKeepsItsMicroBatches) {
  Config config = config_of(8, 10);
  config.batch.grow_at = {16, 100};
  config.batch.grow_to = {12, 32};
  const RunPlan plan = plan_run(config, 2, 100);
  EXPECT_EQ(plan.micro, 2);  // Of shares 4, 6 and 16.
  EXPECT_EQ(plan.micros_per_piece(1), 2);
  EXPECT_EQ(plan.micros_per_piece(3), 3);
  EXPECT_EQ(plan.micros_per_piece(10), 8);
  EXPECT_EQ(plan.first_batch(), 8);
  EXPECT_EQ(plan.last_batch(), 32);
}

TEST(RunPlanTest, EveryPhaseMustDivide) {
  Config config = config_of(8, 10);
  config.batch.grow_at = {16};
  config.batch.grow_to = {10};
  EXPECT_THAT([&] { (void)plan_run(config, 4, 100); },
              ThrowsMessage<UsageError>(HasSubstr("batch.grow_to = 10")));
  config.parallel.shards = 4;
  EXPECT_THAT([&] { (void)plan_run(config, 1, 100); },
              ThrowsMessage<UsageError>(HasSubstr("parallel.shards = 4")));
}

TEST(RunPlanTest, WarmUpComesInStepsSamplesOrAFraction) {
  Config config = config_of(8, 30);
  config.lr_schedule.warmup_steps = 7;
  EXPECT_EQ(plan_run(config, 1, 100).lr_schedule.warmup_steps, 7);
  config.lr_schedule.warmup_steps = 0;
  config.lr_schedule.warmup_fraction = 0.1;
  EXPECT_EQ(plan_run(config, 1, 100).lr_schedule.warmup_steps, 3);
  config.lr_schedule.warmup_fraction = 0.11;
  EXPECT_EQ(plan_run(config, 1, 100).lr_schedule.warmup_steps, 4);
  config.lr_schedule.warmup_fraction = 0;
  config.lr_schedule.warmup_samples = 33;
  EXPECT_EQ(plan_run(config, 1, 100).lr_schedule.warmup_steps, 5);
  config.batch.grow_at = {16};
  config.batch.grow_to = {16};
  EXPECT_EQ(plan_run(config, 1, 100).lr_schedule.warmup_steps, 4);  // 8, 8, 16, 16.
}
}  // namespace
}  // namespace trireme
