#include <algorithm>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "trainer/progress_line.h"
#include "trainer/time_report.h"

namespace trireme {
namespace {
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

const ProgressState kState = {.step = 4120,
                              .num_steps = 10000,
                              .loss = 0.11834,
                              .lr = 8.9e-5,
                              .grad_norm = 0.42,
                              .images_per_second = 292,
                              .data_share = 0.003,
                              .comm_share = 0.041,
                              .seconds_left = 5160};

TEST(ProgressLineTest, ShowsEverythingWhereThereIsRoom) {
  EXPECT_EQ(progress_line(kState, 130),
            "[=======>             ]  step 4,120/10,000  41%  loss 0.1183  lr 8.90e-05  norm 0.42  "
            "292.0 img/s  data 0.3%  comm 4.1%  ETA 1h26m");
}

TEST(ProgressLineTest, FitsEveryWidthAndKeepsStepAndLossLongest) {
  for (int columns = 0; columns <= 200; ++columns) {
    const std::string line = progress_line(kState, columns);
    ASSERT_LE(line.size(), static_cast<size_t>(columns));
    if (columns >= 32) {
      EXPECT_THAT(line, AllOf(HasSubstr("step 4,120/10,000"), HasSubstr("loss 0.1183")));
    }
    if (columns >= 44) {
      EXPECT_THAT(line, HasSubstr("ETA 1h26m"));
    }
  }
}

TEST(ProgressLineTest, CountsAreGrouped) {
  EXPECT_EQ(counted(0), "0");
  EXPECT_EQ(counted(999), "999");
  EXPECT_EQ(counted(1000), "1,000");
  EXPECT_EQ(counted(1234567), "1,234,567");
}

TEST(DurationTest, NamesTheTwoLargestUnits) {
  EXPECT_EQ(duration_text(0.4), "0m00s");
  EXPECT_EQ(duration_text(252), "4m12s");
  EXPECT_EQ(duration_text(3900), "1h05m");
  EXPECT_EQ(duration_text(180000), "2d02h");
}

// Four ranks that spend 10 s in forward and 30 s in backward of 50 s.
TimeReport report_of_four() {
  TimeReport report{.ranks = {}, .wall_seconds = 50, .num_steps = 100, .global_batch = 64};
  for (int r = 0; r < 4; ++r) {
    TimeReport::Rank rank{.host = "node" + std::to_string(r / 2)};
    rank.seconds[static_cast<size_t>(Phase::kForward)] = 10;
    rank.seconds[static_cast<size_t>(Phase::kBackward)] = 30;
    report.ranks.push_back(rank);
  }
  return report;
}

double& at(TimeReport& report, size_t rank, Phase phase) {
  return report.ranks[rank].seconds[static_cast<size_t>(phase)];
}

TEST(TimeReportTest, WhatNoPhaseCountsIsOther) {
  TimeReport report = report_of_four();
  at(report, 1, Phase::kForward) = 14;
  const auto phases = summarize(report);
  ASSERT_THAT(phases, SizeIs(kNumPhases + 1));
  const auto& forward = phases[static_cast<size_t>(Phase::kForward)];
  EXPECT_DOUBLE_EQ(forward.min, 10);
  EXPECT_DOUBLE_EQ(forward.mean, 11);
  EXPECT_DOUBLE_EQ(forward.max, 14);
  EXPECT_DOUBLE_EQ(forward.share, 0.22);
  EXPECT_EQ(phases.back().name, "other");
  EXPECT_DOUBLE_EQ(phases.back().mean, 9);
}

TEST(TimeReportTest, NothingStandsOutInAnEvenRun) {
  EXPECT_THAT(advise(report_of_four()), IsEmpty());
}

TEST(TimeReportTest, AStragglerIsNamedByRankHostAndPhase) {
  TimeReport report = report_of_four();
  at(report, 2, Phase::kBackward) = 38;
  for (const size_t rank : {0U, 1U, 3U}) at(report, rank, Phase::kCommunication) = 8;
  const auto notes = advise(report);
  ASSERT_THAT(notes, SizeIs(1));
  EXPECT_THAT(notes[0], StartsWith("rank 2 on node1 is 20 % slower than the median rank, most of "
                                   "all in backward (8 s more)"));
}

TEST(TimeReportTest, OneOfTwoRanksCanBeTheStraggler) {
  TimeReport report = report_of_four();
  report.ranks.resize(2);
  at(report, 0, Phase::kData) = 9;
  const auto notes = advise(report);
  ASSERT_THAT(notes, Not(IsEmpty()));
  EXPECT_THAT(notes[0],
              AllOf(StartsWith("rank 0 on node0"), HasSubstr("in data"), HasSubstr("disk")));
}

TEST(TimeReportTest, AtMostThreeNotesTheCostliestFirst) {
  TimeReport report = report_of_four();
  for (size_t rank = 0; rank < 4; ++rank) {
    at(report, rank, Phase::kForward) = 2;
    at(report, rank, Phase::kBackward) = 2;
    at(report, rank, Phase::kData) = 8;
    at(report, rank, Phase::kCommunication) = 6;
    at(report, rank, Phase::kEvaluation) = 20;
    at(report, rank, Phase::kCheckpoint) = 7;
  }
  const auto notes = advise(report);
  ASSERT_THAT(notes, SizeIs(3));
  EXPECT_THAT(notes[0], AllOf(StartsWith("40 %"), HasSubstr("eval.every_steps")));
  EXPECT_THAT(notes[1], AllOf(StartsWith("16 %"), HasSubstr("waiting for data")));
  EXPECT_THAT(notes[2], AllOf(StartsWith("14 %"), HasSubstr("checkpoint.every_steps")));
}

TEST(TimeReportTest, AFewStepsProveNothing) {
  TimeReport report = report_of_four();
  at(report, 0, Phase::kData) = 40;
  report.num_steps = 9;
  EXPECT_THAT(advise(report), IsEmpty());
}

TEST(TimeReportTest, TheTableHasARowAPhase) {
  TimeReport report = report_of_four();
  auto lines = time_table(report);
  ASSERT_THAT(lines, SizeIs(kNumPhases + 3));
  EXPECT_EQ(lines[0], "Where the time went: 100 steps in 0m50s, 128.0 images/s overall");
  EXPECT_EQ(lines[5], "  backward                  30.0      30.0      30.0   60.0 %");
  for (const auto& line : lines) EXPECT_LE(line.size(), 80U);
  report.ranks.resize(1);
  lines = time_table(report);
  EXPECT_EQ(lines[5], "  backward                   30.0   60.0 %");
}
}  // namespace
}  // namespace trireme
