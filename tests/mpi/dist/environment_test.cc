#include <array>
#include <cstdlib>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "dist/announced.h"
#include "dist/mpi_environment.h"
#include "tests/mpi/world.h"

namespace trireme {
namespace {
using testing::HasSubstr;

TEST(MpiEnvironmentTest, KnowsItsNode) {
  auto& mpi = test::world();
  EXPECT_EQ(mpi.num_nodes(), 1);
  EXPECT_EQ(mpi.local_size(), mpi.world_size());
  EXPECT_EQ(mpi.local_rank(), mpi.rank());
  EXPECT_FALSE(mpi.host_name().empty());
}

TEST(MpiEnvironmentTest, ReducesElementwise) {
  auto& mpi = test::world();
  std::array<int64_t, 3> maxima{mpi.rank(), -mpi.rank(), 7};
  mpi.all_reduce_max(maxima);
  EXPECT_THAT(maxima, testing::ElementsAre(mpi.world_size() - 1, 0, 7));
  std::array<double, 2> sums{1.5, static_cast<double>(mpi.rank())};
  mpi.all_reduce_sum(sums);
  EXPECT_THAT(sums, testing::ElementsAre(1.5 * mpi.world_size(),
                                         mpi.world_size() * (mpi.world_size() - 1) / 2.0));
}

TEST(MpiEnvironmentTest, GathersTextsOfAnyLength) {
  auto& mpi = test::world();
  const auto texts = mpi.gather_strings(std::string(static_cast<size_t>(mpi.rank()) * 100, 'x'));
  ASSERT_EQ(texts.size(), static_cast<size_t>(mpi.world_size()));
  for (size_t r = 0; r < texts.size(); ++r) EXPECT_EQ(texts[r], std::string(r * 100, 'x'));
}

TEST(MpiEnvironmentTest, BroadcastsTextsFromAnyRoot) {
  auto& mpi = test::world();
  for (int root = 0; root < mpi.world_size(); ++root) {
    std::string text = mpi.rank() == root
                           ? "of rank " + std::to_string(root) + std::string("\0!", 2)
                           : "longer than that, elsewhere";
    mpi.broadcast_string(text, root);
    EXPECT_EQ(text, "of rank " + std::to_string(root) + std::string("\0!", 2));
  }
  std::string empty;
  mpi.broadcast_string(empty);
  EXPECT_EQ(empty, "");
}

// Runs `work` on all ranks together; what each of them then threw.
struct Thrown {
  int code = 0;
  bool is_peer = false;
  std::string message;
};
Thrown outcome_of(const std::function<void()>& work) {
  try {
    test::world().run_on_all_ranks(work);
  } catch (const PeerFailedError& error) {
    return {.code = static_cast<int>(error.code()), .is_peer = true, .message = error.what()};
  } catch (const Error& error) {
    return {.code = static_cast<int>(error.code()), .is_peer = false, .message = error.what()};
  } catch (const std::exception& error) {
    return {.code = -1, .is_peer = false, .message = error.what()};
  }
  return {};
}

TEST(AgreementTest, SuccessIsSilent) {
  EXPECT_EQ(outcome_of([] {}).code, 0);
}

TEST(AgreementTest, OneRanksErrorEndsAllWithItsCode) {
  auto& mpi = test::world();
  const int last = mpi.world_size() - 1;
  const Thrown thrown = outcome_of([&] {
    if (mpi.rank() == last) throw InputError("no such file");
  });
  EXPECT_EQ(thrown.code, 3);
  EXPECT_EQ(thrown.is_peer, mpi.rank() != last);
  if (mpi.rank() == last) {
    EXPECT_THAT(thrown.message, HasSubstr("no such file"));
    EXPECT_THAT(thrown.message, HasSubstr(last > 0 ? "rank " + std::to_string(last) : ""));
  }
}

TEST(AgreementTest, TheLargestCodeWins) {
  auto& mpi = test::world();
  const Thrown thrown = outcome_of([&] {
    if (mpi.rank() == mpi.world_size() - 1) throw DivergedError("not finite");
    throw UsageError("wrong key");
  });
  EXPECT_EQ(thrown.code, 5);
  EXPECT_EQ(thrown.is_peer, mpi.rank() != mpi.world_size() - 1);
}

TEST(AgreementTest, OnATieTheLowestRankSpeaksAndNamesNoRank) {
  auto& mpi = test::world();
  const Thrown thrown = outcome_of([] { throw UsageError("wrong key"); });
  EXPECT_EQ(thrown.code, 2);
  EXPECT_EQ(thrown.is_peer, mpi.rank() != 0);
  EXPECT_EQ(thrown.message, mpi.rank() == 0 ? "wrong key" : "another rank failed");
}

TEST(AgreementTest, ForeignExceptionsKeepTheirType) {
  auto& mpi = test::world();
  const Thrown thrown = outcome_of([&] {
    if (mpi.rank() == 0) throw std::out_of_range("index 9");
  });
  EXPECT_EQ(thrown.code, mpi.rank() == 0 ? -1 : 1);
}

TEST(AgreementTest, NestedAgreementsSpeakOnce) {
  auto& mpi = test::world();
  const Thrown thrown = outcome_of([&] {
    mpi.run_on_all_ranks([&] {
      if (mpi.rank() == mpi.world_size() - 1) throw InputError("inner");
    });
  });
  EXPECT_EQ(thrown.code, 3);
  EXPECT_EQ(thrown.is_peer, mpi.rank() != mpi.world_size() - 1);
}

TEST(AnnouncedTest, MoreProcessesThanTheWorldIsAUsageErrorWithTheCure) {
  const Announced announced{.num_processes = 4, .rank = 0, .variable = "OMPI_COMM_WORLD_SIZE"};
  EXPECT_NO_THROW(check_announced(announced, 4));
  try {
    check_announced(announced, 1);
    FAIL() << "accepted";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("srun --mpi=pmix"));
  }
  const Announced other{.num_processes = 4, .rank = 3, .variable = "PMI_SIZE"};
  EXPECT_THROW(check_announced(other, 1), PeerFailedError);
}

TEST(FactoryTest, ImpossibleChoicesAreUsageErrors) {
  auto& mpi = test::world();
  for (const int device : {-1, 0}) {
    CommunicatorOptions options;
    options.backend = Backend::kNccl;
    options.device = device;
    try {
      static_cast<void>(make_communicator(mpi, options));
      FAIL() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUsage);
    }
  }
}

TEST(FactoryTest, AutoTakesSharedMemoryOnOneNode) {
  auto& mpi = test::world();
  const auto comm = make_communicator(mpi, {});
  EXPECT_EQ(comm->backend(), mpi.world_size() == 1 ? "local" : "shm");
}
}  // namespace
}  // namespace trireme
