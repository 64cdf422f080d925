#include "trainer/in_touch.h"

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/mpi/world.h"

namespace trireme {
namespace {
using test::world;
using testing::HasSubstr;

TEST(InTouchTest, ReportsTheUnitsOfAllRanksOnce) {
  std::vector<int64_t> reported;
  run_in_touch(
      world(),
      [](WorkReport& report) {
        for (int i = 0; i <= world().rank(); ++i) report.advance(2);
      },
      [&](int64_t done) { reported.push_back(done); });
  const int64_t ranks = world().world_size();
  EXPECT_EQ(reported.back(), ranks * (ranks + 1));
  EXPECT_TRUE(std::ranges::is_sorted(reported));
}

TEST(InTouchTest, NoRankWaitsForAnothersWorkInsideACollective) {
  // One rank works for longer than a collective may last.
  world().set_timeout_seconds(3.0);
  EXPECT_NO_THROW(run_in_touch(world(), [](WorkReport&) {
    if (world().rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(4000));
  }));
  world().set_timeout_seconds(60.0);
}

TEST(InTouchTest, AnErrorOfOneRankEndsTheOthersWork) {
  const int failing = world().world_size() - 1;
  try {
    run_in_touch(world(), [&](WorkReport& report) {
      if (world().rank() == failing) throw InputError("a bad file");
      for (;;) {  // Until told.
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        report.advance(1);
      }
    });
    ADD_FAILURE() << "no error on rank " << world().rank();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kInput);
    if (world().rank() == failing) {
      EXPECT_THAT(error.what(), HasSubstr("a bad file"));
    }
  }
}

TEST(InTouchTest, AStopThatOneRankWantsEndsTheWorkOfAll) {
  const WorkStopper stopper([] { return world().rank() == world().world_size() - 1; });
  EXPECT_THROW(run_in_touch(world(),
                            [](WorkReport& report) {
                              for (;;) {  // Until told.
                                std::this_thread::sleep_for(std::chrono::milliseconds(1));
                                report.advance(1);
                              }
                            }),
               WorkStopped);
}

TEST(InTouchTest, AStopDoesNotThrowAwayWhatIsFinished) {
  const WorkStopper stopper([] { return true; });
  EXPECT_NO_THROW(run_in_touch(world(), [](WorkReport& report) { report.advance(1); }));
}

TEST(InTouchTest, AStopperIsGoneWithItsScope) {
  {
    const WorkStopper stopper([] { return true; });
  }
  EXPECT_NO_THROW(run_in_touch(world(), [](WorkReport& report) {
    std::this_thread::sleep_for(std::chrono::milliseconds(700));  // Longer than a period.
    report.advance(1);
  }));
}
}  // namespace
}  // namespace trireme
