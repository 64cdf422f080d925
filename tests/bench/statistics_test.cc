#include "bench/statistics.h"

#include <gtest/gtest.h>

namespace trireme::bench {
namespace {
TEST(MedianIntervalTest, FewSamplesGiveTheirRange) {
  const Interval interval = median_interval({3.0, 1.0, 2.0});
  EXPECT_EQ(interval.median, 2.0);
  EXPECT_EQ(interval.low, 1.0);
  EXPECT_EQ(interval.high, 3.0);
  EXPECT_EQ(median_interval({1.0, 2.0}).median, 1.5);
}

// Nine samples: P(the median lies outside the 2nd … 8th) = 2 (1 + 9) / 512 = 3.9 %; outside the 3rd
// … 7th it would be 18 %.
TEST(MedianIntervalTest, LeavesOutWhatNinetyFivePercentAllow) {
  const Interval interval = median_interval({1, 2, 3, 4, 5, 6, 7, 8, 9});
  EXPECT_EQ(interval.median, 5.0);
  EXPECT_EQ(interval.low, 2.0);
  EXPECT_EQ(interval.high, 8.0);
}

TEST(RatiosTest, AreTakenSampleBySample) {
  const auto result = ratios({2.0, 9.0}, {4.0, 3.0});
  EXPECT_EQ(result[0], 0.5);
  EXPECT_EQ(result[1], 3.0);
}
}  // namespace
}  // namespace trireme::bench
