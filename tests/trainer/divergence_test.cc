#include "trainer/divergence.h"

#include <limits>

#include <gmock/gmock.h>

namespace trireme {
namespace {
using Verdict = DivergenceGuard::Verdict;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(DivergenceGuardTest, StopsAtTheFirstNumberThatIsNotFinite) {
  CheckpointState state;
  DivergenceGuard guard({}, state);
  EXPECT_EQ(guard.judge(1.0, 1.0), Verdict::kUpdate);
  EXPECT_EQ(guard.judge(1.0, kNan), Verdict::kStop);
  EXPECT_EQ(guard.judge(std::numeric_limits<double>::infinity(), 1.0), Verdict::kStop);
  EXPECT_EQ(state.updates, 1);
  EXPECT_THAT(guard.reason(), testing::HasSubstr("loss inf"));
}

TEST(DivergenceGuardTest, SkipsSoManyInARow) {
  CheckpointState state;
  DivergenceGuard guard({.policy = DivergencePolicy::kSkip, .max_skips = 2}, state);
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(guard.judge(kNan, 1.0), Verdict::kSkip);
    EXPECT_EQ(guard.judge(kNan, 1.0), Verdict::kSkip);
    EXPECT_EQ(guard.judge(1.0, 1.0), Verdict::kUpdate);
  }
  EXPECT_EQ(guard.judge(1.0, kNan), Verdict::kSkip);
  EXPECT_EQ(guard.judge(1.0, kNan), Verdict::kSkip);
  EXPECT_EQ(guard.judge(1.0, kNan), Verdict::kStop);
  EXPECT_EQ(state.updates, 3);
}

TEST(DivergenceGuardTest, SpikesStandOutAgainstTheAverageOfUpdates) {
  CheckpointState state;
  const DivergenceOptions options{
      .policy = DivergencePolicy::kSkip, .max_skips = 10, .spike_factor = 3.0};
  DivergenceGuard guard(options, state);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(guard.judge(1.0, 2.0), Verdict::kUpdate);
  EXPECT_EQ(guard.judge(2.9, 5.9), Verdict::kUpdate);
  EXPECT_EQ(guard.judge(4.0, 2.0), Verdict::kSkip);
  EXPECT_EQ(guard.judge(1.0, 9.0), Verdict::kSkip);
  EXPECT_THAT(guard.reason(), testing::HasSubstr("divergence.spike_factor = 3"));
  // The memory is in the state: another guard goes on with it.
  EXPECT_EQ(DivergenceGuard(options, state).judge(4.0, 2.0), Verdict::kSkip);
  EXPECT_EQ(state.skipped_in_a_row, 3);
}

TEST(DivergenceGuardTest, NothingIsASpikeAtFirstOrWithoutAFactor) {
  CheckpointState state;
  DivergenceGuard young({.spike_factor = 2.0}, state);
  for (int i = 0; i < 20; ++i)
    EXPECT_EQ(young.judge(i % 2 == 0 ? 0.1 : 50.0, 1.0), Verdict::kUpdate);
  CheckpointState other;
  DivergenceGuard off({}, other);
  for (int i = 0; i < 30; ++i) EXPECT_EQ(off.judge(1.0, 1.0), Verdict::kUpdate);
  EXPECT_EQ(off.judge(1e9, 1e9), Verdict::kUpdate);
}
}  // namespace
}  // namespace trireme
