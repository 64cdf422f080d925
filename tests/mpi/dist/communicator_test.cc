#include "dist/communicator.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "dist/local_communicator.h"
#include "dist/mpi_communicator.h"
#include "dist/shm_communicator.h"
#include "tests/mpi/world.h"

namespace trireme {
namespace {
using testing::Each;

enum class Memory { kPrivate, kResident };

// Small limits, so that ordinary lengths are cut into several pieces.
std::unique_ptr<Communicator> make(const std::string& backend) {
  auto& mpi = test::world();
  if (backend == "mpi") return make_mpi_communicator(mpi, {});
  if (backend == "mpi cut") return make_mpi_communicator(mpi, {.max_count = 1000});
  if (backend == "shm") return std::move(make_shm_communicator(mpi, {}).communicator);
  if (backend == "shm cut")
    return std::move(make_shm_communicator(mpi, {.scratch_bytes = 8192}).communicator);
  return make_communicator(mpi, {});
}

// Elements of either kind of memory.
template <typename T>
class Values {
 public:
  Values(Communicator& comm, Memory memory, int64_t count) {
    if (memory == Memory::kResident) {
      buffer_ = comm.allocate(count, BufferView::type_of<T>());
      view_ = buffer_->view();
    } else {
      private_.resize(static_cast<size_t>(count));
      view_ = BufferView::of(private_);
    }
  }
  [[nodiscard]] BufferView view() const { return view_; }
  [[nodiscard]] std::span<T> span() const {
    return {static_cast<T*>(view_.data), static_cast<size_t>(view_.num_elements)};
  }
  T& operator[](int64_t i) const { return span()[static_cast<size_t>(i)]; }

 private:
  std::vector<T> private_;
  std::unique_ptr<CommBuffer> buffer_;
  BufferView view_;
};

class CommunicatorTest : public testing::TestWithParam<std::tuple<std::string, Memory>> {
 protected:
  CommunicatorTest() : comm_(make(std::get<0>(GetParam()))), memory_(std::get<1>(GetParam())) {}
  template <typename T>
  [[nodiscard]] Values<T> values(int64_t count) {
    return Values<T>(*comm_, memory_, count);
  }
  [[nodiscard]] int rank() const { return comm_->rank(); }
  [[nodiscard]] int size() const { return comm_->world_size(); }
  [[nodiscard]] std::string where() const { return "on rank " + std::to_string(rank()); }

  std::unique_ptr<Communicator> comm_;
  Memory memory_;
};

constexpr int64_t kLengths[] = {0, 1, 2, 15, 16, 17, 1000, 4096, 10'007};

TEST_P(CommunicatorTest, RanksAreThoseOfTheWorld) {
  EXPECT_EQ(rank(), test::world().rank());
  EXPECT_EQ(size(), test::world().world_size());
}

TEST_P(CommunicatorTest, AllocatesZeroedAlignedMemory) {
  const auto buffer = comm_->allocate(1003, ScalarType::kFloat64);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->view().data) % 64, 0U);
  const auto* data = static_cast<const double*>(buffer->view().data);
  EXPECT_THAT(std::vector<double>(data, data + 1003), Each(0.0));
}

TEST_P(CommunicatorTest, SumReachesEveryRank) {
  for (const int64_t count : kLengths) {
    const auto v = values<float>(count);
    for (int64_t i = 0; i < count; ++i) v[i] = static_cast<float>(i % 100 + 1000 * rank());
    comm_->all_reduce(v.view(), ReduceOp::kSum)->wait();
    const int64_t of_ranks = int64_t{1000} * size() * (size() - 1) / 2;
    for (int64_t i = 0; i < count; ++i) {
      ASSERT_EQ(v[i], static_cast<float>(of_ranks + i % 100 * size()))
          << where() << " element " << i;
    }
  }
}

TEST_P(CommunicatorTest, EveryTypeAndOperationReduces) {
  const auto check_type = [&]<typename T>(T) {
    const auto sum = values<T>(37);
    const auto max = values<T>(37);
    const auto min = values<T>(37);
    for (int64_t i = 0; i < 37; ++i) sum[i] = max[i] = min[i] = static_cast<T>(i + rank());
    comm_->all_reduce(sum.view(), ReduceOp::kSum)->wait();
    comm_->all_reduce(max.view(), ReduceOp::kMax)->wait();
    comm_->all_reduce(min.view(), ReduceOp::kMin)->wait();
    for (int64_t i = 0; i < 37; ++i) {
      EXPECT_EQ(sum[i], static_cast<T>(i * size() + size() * (size() - 1) / 2)) << where();
      EXPECT_EQ(max[i], static_cast<T>(i + size() - 1)) << where();
      EXPECT_EQ(min[i], static_cast<T>(i)) << where();
    }
  };
  check_type(float{});
  check_type(double{});
  check_type(int64_t{});
  check_type(uint8_t{});
}

TEST_P(CommunicatorTest, HalfTypesTravelButAreNotReducedOnCpus) {
  const auto buffer = comm_->allocate(64, ScalarType::kBFloat16);
  auto* data = static_cast<uint16_t*>(buffer->view().data);
  std::fill(data, data + 64, static_cast<uint16_t>(rank() == 0 ? 0x3f80 : 0));
  comm_->broadcast(buffer->view(), 0)->wait();
  EXPECT_THAT(std::vector<uint16_t>(data, data + 64), Each(0x3f80)) << where();
  if (comm_->backend() != "local") {
    EXPECT_THROW(static_cast<void>(comm_->all_reduce(buffer->view(), ReduceOp::kSum)), UsageError);
  }
}

TEST_P(CommunicatorTest, BroadcastComesFromEachRoot) {
  for (int root = 0; root < size(); ++root) {
    for (const int64_t count : kLengths) {
      const auto v = values<int64_t>(count);
      for (int64_t i = 0; i < count; ++i) v[i] = 1'000'000 * rank() + i;
      comm_->broadcast(v.view(), root)->wait();
      for (int64_t i = 0; i < count; ++i) ASSERT_EQ(v[i], 1'000'000 * root + i) << where();
    }
  }
}

TEST_P(CommunicatorTest, GatherPutsPartsInRankOrder) {
  for (const int64_t count : kLengths) {
    const auto in = values<double>(count);
    const auto out = values<double>(count * size());
    for (int64_t i = 0; i < count; ++i) in[i] = 1e6 * rank() + static_cast<double>(i);
    comm_->all_gather(in.view(), out.view())->wait();
    for (int64_t i = 0; i < count * size(); ++i) {
      ASSERT_EQ(out[i], 1e6 * static_cast<double>(i / count) + static_cast<double>(i % count))
          << where();
    }
  }
}

TEST_P(CommunicatorTest, GatherWorksInPlace) {
  for (const int64_t count : kLengths) {
    const auto out = values<float>(count * size());
    for (int64_t i = 0; i < count * size(); ++i) out[i] = -1.0F;
    for (int64_t i = 0; i < count; ++i)
      out[count * rank() + i] = static_cast<float>(100'000 * rank() + i);
    comm_->all_gather(out.view().slice(count * rank(), count), out.view())->wait();
    for (int64_t i = 0; i < count * size(); ++i) {
      ASSERT_EQ(out[i], static_cast<float>(100'000 * (i / count) + i % count)) << where();
    }
  }
}

TEST_P(CommunicatorTest, ScatterSumsTheOwnPart) {
  for (const int64_t count : kLengths) {
    const auto in = values<float>(count * size());
    const auto out = values<float>(count);
    for (int64_t i = 0; i < count * size(); ++i) in[i] = static_cast<float>(i + rank());
    comm_->reduce_scatter(in.view(), out.view())->wait();
    for (int64_t i = 0; i < count; ++i) {
      const int64_t index = count * rank() + i;
      ASSERT_EQ(out[i], static_cast<float>(index * size() + size() * (size() - 1) / 2)) << where();
    }
  }
}

TEST_P(CommunicatorTest, ScatterWorksInPlace) {
  for (const int64_t count : kLengths) {
    const auto in = values<int64_t>(count * size());
    for (int64_t i = 0; i < count * size(); ++i) in[i] = i + rank();
    const BufferView own = in.view().slice(count * rank(), count);
    comm_->reduce_scatter(in.view(), own)->wait();
    for (int64_t i = 0; i < count; ++i) {
      const int64_t index = count * rank() + i;
      ASSERT_EQ(in[index], index * size() + size() * (size() - 1) / 2) << where();
    }
  }
}

TEST_P(CommunicatorTest, ExchangeTransposesParts) {
  for (const int64_t count : kLengths) {
    const auto in = values<int64_t>(count * size());
    const auto out = values<int64_t>(count * size());
    for (int64_t i = 0; i < count * size(); ++i) in[i] = 1'000'000 * rank() + i;
    comm_->all_to_all(in.view(), out.view())->wait();
    for (int64_t i = 0; i < count * size(); ++i) {
      ASSERT_EQ(out[i], 1'000'000 * (i / count) + count * rank() + i % count) << where();
    }
  }
}

TEST_P(CommunicatorTest, WorkInFlightIsWaitedForInAnyOrder) {
  std::vector<Values<double>> buffers;
  for (int64_t i = 0; i < 6; ++i) buffers.push_back(values<double>(100 + 900 * i));
  for (int round = 0; round < 20; ++round) {
    std::vector<std::unique_ptr<Work>> works;
    for (size_t b = 0; b < buffers.size(); ++b) {
      for (double& value : buffers[b].span()) value = static_cast<double>(b) + rank() + round;
      works.push_back(comm_->all_reduce(buffers[b].view(), ReduceOp::kSum));
    }
    for (size_t b = buffers.size(); b-- > 0;) {
      works[b]->wait();
      EXPECT_TRUE(works[b]->is_done());
      const double expected = (static_cast<double>(b) + round) * size() +
                              static_cast<double>(size() * (size() - 1)) / 2;
      ASSERT_THAT(buffers[b].span(), Each(expected))
          << where() << " buffer " << b << " round " << round;
    }
  }
}

TEST_P(CommunicatorTest, AllRanksGetTheSameBits) {
  const auto v = values<float>(5000);
  for (int64_t i = 0; i < 5000; ++i) v[i] = 1.0F / static_cast<float>(3 + i * 7 + rank() * 13);
  comm_->all_reduce(v.view(), ReduceOp::kSum)->wait();
  std::vector<float> first(v.span().begin(), v.span().end());
  comm_->broadcast(BufferView::of(first), 0)->wait();
  EXPECT_TRUE(std::ranges::equal(first, v.span())) << where();
}

TEST_P(CommunicatorTest, SlicesOfOneBufferAreReducedOnTheirOwn) {
  const auto v = values<float>(1000);
  for (int64_t i = 0; i < 1000; ++i) v[i] = 1.0F;
  const auto first = comm_->all_reduce(v.view().slice(3, 100), ReduceOp::kSum);
  const auto second = comm_->all_reduce(v.view().slice(500, 499), ReduceOp::kSum);
  second->wait();
  first->wait();
  for (int64_t i = 0; i < 1000; ++i) {
    const bool is_in = (i >= 3 && i < 103) || (i >= 500 && i < 999);
    ASSERT_EQ(v[i], is_in ? static_cast<float>(size()) : 1.0F) << where() << " element " << i;
  }
}

TEST_P(CommunicatorTest, ALargeBufferIsReduced) {
  constexpr int64_t kCount = int64_t{3} << 20;
  const bool is_cut = std::get<0>(GetParam()).ends_with("cut");
  const int64_t count = is_cut ? 100'003 : kCount + 5;
  const auto v = values<float>(count);
  for (int64_t i = 0; i < count; ++i) v[i] = static_cast<float>(i % 1021 + rank());
  comm_->all_reduce(v.view(), ReduceOp::kSum)->wait();
  for (int64_t i = 0; i < count; ++i) {
    ASSERT_EQ(v[i], static_cast<float>(i % 1021 * size() + size() * (size() - 1) / 2)) << where();
  }
}

TEST_P(CommunicatorTest, RefusesLengthsThatDoNotFit) {
  std::vector<float> in(10);
  std::vector<float> out(static_cast<size_t>(10 * size() + 1));
  EXPECT_THROW(static_cast<void>(comm_->all_gather(BufferView::of(in), BufferView::of(out))),
               InternalError);
  EXPECT_THROW(static_cast<void>(comm_->reduce_scatter(BufferView::of(out), BufferView::of(in))),
               InternalError);
  EXPECT_THROW(static_cast<void>(comm_->broadcast(BufferView::of(in), size())), InternalError);
}

INSTANTIATE_TEST_SUITE_P(Backends, CommunicatorTest,
                         testing::Combine(testing::Values("mpi", "mpi cut", "shm", "shm cut",
                                                          "auto"),
                                          testing::Values(Memory::kPrivate, Memory::kResident)),
                         [](const auto& info) {
                           std::string name = std::get<0>(info.param);
                           std::ranges::replace(name, ' ', 'X');
                           return name + (std::get<1>(info.param) == Memory::kPrivate ? "Private"
                                                                                      : "Resident");
                         });

TEST(MixedMemoryTest, OneRankResidentAndTheOthersPrivate) {
  const auto comm = make("shm");
  const auto buffer = comm->allocate(100, ScalarType::kFloat32);
  std::vector<float> own(100, 1.0F);
  BufferView view = BufferView::of(own);
  if (comm->rank() == 0) {
    view = buffer->view();
    std::fill_n(static_cast<float*>(view.data), 100, 1.0F);
  }
  comm->all_reduce(view, ReduceOp::kSum)->wait();
  EXPECT_EQ(static_cast<float*>(view.data)[99], static_cast<float>(comm->world_size()));
}

TEST(ShmCommunicatorTest, DifferentCollectivesAreAnErrorOnEveryRank) {
  if (test::world().world_size() == 1) GTEST_SKIP() << "needs two ranks";
  const auto comm = make("shm");
  std::vector<float> values(static_cast<size_t>(10 + comm->rank()));
  const auto work = comm->all_reduce(BufferView::of(values), ReduceOp::kSum);
  EXPECT_THROW(work->wait(), InternalError);
}

class DeadlineTest : public testing::TestWithParam<std::string> {
 protected:
  static std::unique_ptr<Communicator> make_impatient() {
    constexpr double kTimeoutSeconds = 0.2;
    auto& mpi = test::world();
    if (GetParam() == "mpi")
      return make_mpi_communicator(mpi, {.timeout_seconds = kTimeoutSeconds});
    return std::move(make_shm_communicator(mpi, {.timeout_seconds = kTimeoutSeconds}).communicator);
  }
};

TEST_P(DeadlineTest, NamesTheRankThatDoesNotCome) {
  auto& mpi = test::world();
  if (mpi.world_size() == 1) GTEST_SKIP() << "needs two ranks";
  const int last = mpi.world_size() - 1;
  {
    const auto comm = make_impatient();
    std::vector<float> values(10);
    if (mpi.rank() != last) {
      const auto work = comm->all_reduce(BufferView::of(values), ReduceOp::kSum);
      std::string message;
      try {
        work->wait();
      } catch (const LostError& error) {
        message = error.what();
      }
      EXPECT_THAT(message, testing::ContainsRegex("[Rr]ank " + std::to_string(last)));
      EXPECT_THROW(static_cast<void>(comm->all_reduce(BufferView::of(values), ReduceOp::kSum)),
                   LostError);
    }
    mpi.barrier();
  }
}

TEST_P(DeadlineTest, AbortFreesThePeers) {
  auto& mpi = test::world();
  if (mpi.world_size() == 1) GTEST_SKIP() << "needs two ranks";
  const auto comm = GetParam() == "mpi" ? make("mpi") : make("shm");
  mpi.barrier();  // The abort must not meet a rank that is still setting up.
  std::vector<float> values(10);
  if (mpi.rank() == 0) {
    comm->abort();
  } else {
    const auto work = comm->all_reduce(BufferView::of(values), ReduceOp::kSum);
    EXPECT_THROW(work->wait(), LostError);
  }
  mpi.barrier();
}

INSTANTIATE_TEST_SUITE_P(Backends, DeadlineTest, testing::Values("mpi", "shm"));
}  // namespace
}  // namespace trireme
