#include "data/batch_schedule.h"

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trireme {
namespace {
TEST(BatchScheduleTest, ConstantBatchesCountSamples) {
  const BatchSchedule schedule = 6;
  EXPECT_EQ(schedule.global_batch(1), 6);
  EXPECT_EQ(schedule.global_batch(1000), 6);
  EXPECT_EQ(schedule.samples_after(0), 0);
  EXPECT_EQ(schedule.samples_after(7), 42);
  EXPECT_EQ(schedule.step_that_consumes(1), 1);
  EXPECT_EQ(schedule.step_that_consumes(6), 1);
  EXPECT_EQ(schedule.step_that_consumes(7), 2);
  EXPECT_EQ(schedule.samples_after(int64_t{1} << 62), std::numeric_limits<int64_t>::max());
}

// Step by step: a phase is due once that many samples were consumed.
TEST(BatchScheduleTest, GrowsAtTheFirstStepThatFindsTheSamplesConsumed) {
  using Growths = std::vector<BatchSchedule::Growth>;
  for (const Growths& growth : {Growths{{10, 8}},
                                {{12, 6}, {30, 16}, {31, 32}},
                                {{1, 5}, {2, 9}},
                                {{4, 8}, {5, 16}, {6, 64}}}) {
    const BatchSchedule schedule(4, growth);
    int64_t samples = 0;
    for (int64_t step = 1; step <= 20; ++step) {
      int64_t batch = 4;
      for (const auto& [at, size] : growth) {
        if (samples >= at) batch = size;
      }
      ASSERT_EQ(schedule.global_batch(step), batch) << "step " << step;
      for (int64_t count = samples + 1; count <= samples + batch; ++count) {
        ASSERT_EQ(schedule.step_that_consumes(count), step) << count << " samples";
      }
      samples += batch;
      ASSERT_EQ(schedule.samples_after(step), samples) << "step " << step;
    }
  }
}

TEST(BatchScheduleTest, PhasesWithoutStepsAreLeftOut) {
  // After one step of 4 both 5 and 16 are overtaken by 64.
  const BatchSchedule schedule(4, {{1, 5}, {2, 16}, {3, 64}});
  EXPECT_EQ(schedule.phases().size(), 2U);
  EXPECT_EQ(schedule.global_batch(2), 64);
}
}  // namespace
}  // namespace trireme
