#include "dist/communication_thread.h"

#include <algorithm>
#include <functional>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace trireme {
namespace {
using Start = CommunicationThread::Start;
using testing::ElementsAre;

class CommunicationThreadTest : public testing::Test {
 protected:
  // An operation that notes `number` and the thread it ran on.
  std::function<void()> note(int number) {
    return [this, number] {
      numbers_.push_back(number);
      threads_.push_back(std::this_thread::get_id());
    };
  }

  std::vector<int> numbers_;
  std::vector<std::thread::id> threads_;
  std::promise<void> interrupted_;
  CommunicationThread thread_{[this] { interrupted_.set_value(); }};
};

// The thread may come by first, where it is awake from what was before: at its start, mostly.
TEST_F(CommunicationThreadTest, ALazyOperationIsRunByItsWaiter) {
  do {
    thread_.start(note(1), "small", Start::kLazy)->wait();
  } while (threads_.back() != std::this_thread::get_id());  // The test's deadline is the limit.
}

TEST_F(CommunicationThreadTest, AnotherIsRunByTheThread) {
  thread_.start(note(1))->wait();
  ASSERT_EQ(threads_.size(), 1U);
  EXPECT_NE(threads_[0], std::this_thread::get_id());
}

TEST_F(CommunicationThreadTest, AWaiterRunsWhatWasQueuedBeforeInOrder) {
  const auto first = thread_.start(note(1), "small", Start::kLazy);
  thread_.start(note(2), "small", Start::kLazy)->wait();
  EXPECT_THAT(numbers_, ElementsAre(1, 2));
  EXPECT_TRUE(first->is_done());
}

TEST_F(CommunicationThreadTest, AWaiterDoesNotOvertakeTheThread) {
  std::promise<void> open;
  std::promise<void> entered;
  const auto slow = thread_.start([&] {
    entered.set_value();
    open.get_future().wait();
    numbers_.push_back(1);
  });
  const auto small = thread_.start(note(2), "small", Start::kLazy);
  entered.get_future().wait();
  std::thread opener([&] { open.set_value(); });
  small->wait();
  opener.join();
  EXPECT_THAT(numbers_, ElementsAre(1, 2));
}

TEST_F(CommunicationThreadTest, TheThreadRunsLazyOperationsBeforeALaterOne) {
  const auto small = thread_.start(note(1), "small", Start::kLazy);
  thread_.start(note(2))->wait();
  EXPECT_THAT(numbers_, ElementsAre(1, 2));
  EXPECT_TRUE(small->is_done());
}

TEST_F(CommunicationThreadTest, WhoeverAsksWhetherALazyOperationIsDoneGetsItDone) {
  const auto small = thread_.start(note(1), "small", Start::kLazy);
  while (!small->is_done()) std::this_thread::yield();  // The test's deadline is the limit.
  EXPECT_THAT(numbers_, ElementsAre(1));
}

TEST_F(CommunicationThreadTest, ALazyOperationThatNobodyWaitsForIsRunWhenItsWorkGoes) {
  (void)thread_.start(note(1), "small", Start::kLazy);
  EXPECT_THAT(numbers_, ElementsAre(1));
}

TEST_F(CommunicationThreadTest, AfterALazyOperationThatThrewAllFail) {
  const auto bad = thread_.start([] { throw LostError("rank 3 is gone"); }, "small", Start::kLazy);
  EXPECT_THROW(bad->wait(), LostError);
  EXPECT_THROW((void)thread_.start(note(1)), LostError);
  EXPECT_THROW((void)thread_.start(note(2), "small", Start::kLazy), LostError);
  EXPECT_TRUE(numbers_.empty());
}

TEST_F(CommunicationThreadTest, MixedOperationsKeepTheirOrderUnderLoad) {
  std::vector<std::unique_ptr<Work>> works;
  for (int i = 0; i < 2000; ++i) {
    works.push_back(thread_.start(note(i), "any", i % 3 == 0 ? Start::kNow : Start::kLazy));
    if (i % 7 == 0) works.back()->wait();
  }
  for (const auto& work : works) work->wait();
  ASSERT_EQ(numbers_.size(), 2000U);
  EXPECT_TRUE(std::ranges::is_sorted(numbers_));
}
}  // namespace
}  // namespace trireme
