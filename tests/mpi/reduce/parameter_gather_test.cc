#include "trainer/reduce/parameter_gather.h"

#include <gmock/gmock.h>

#include "tests/mpi/reduce/recording_communicator.h"
#include "tests/mpi/world.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
struct Gathered {
  NamedParameters parameters = {{"late", torch::zeros({700})}, {"early", torch::zeros({300})}};
  std::unique_ptr<Communicator> real = make_communicator(test::world(), {});
  test::RecordingCommunicator comm{*real};
  // In the order of backward: what forward takes first comes last.
  GradientBuckets buckets{
      comm, parameters, {{0}, {1}}, GradientBuckets::ParameterMemory::kCommunicator};

  // Each rank's slice gets the values that update `step` would give it; the others' stay stale.
  void update_own_slices(double step) {
    for (auto& bucket : buckets.flat()) {
      const int64_t slice = bucket.params.numel() / comm.world_size();
      auto mine = bucket.params.narrow(0, slice * comm.rank(), slice);
      mine.copy_(torch::arange(slice * comm.rank(), slice * (comm.rank() + 1)) + 1000.0 * step);
    }
  }
  static at::Tensor expected(const at::Tensor& parameter, double step) {
    return torch::arange(parameter.numel(), torch::kFloat) + 1000.0 * step;
  }
};

TEST(ParameterGatherTest, AnOperatorFindsItsParameterWholeWhileOthersAreInFlight) {
  Gathered g;
  ParameterGather gather(g.comm, g.buckets);
  for (int step = 1; step <= 3; ++step) {
    g.update_own_slices(step);
    g.comm.log().clear();
    gather.start();
    const at::Tensor early = g.parameters[1].second + 0.0;
    EXPECT_TRUE(torch::equal(early, Gathered::expected(early, step)))
        << "on rank " << g.comm.rank();
    if (g.comm.world_size() > 1) {
      // The first operator waited for its own bucket and for no other.
      EXPECT_THAT(g.comm.log(), testing::ElementsAre("start 0", "start 1", "wait 0"));
    }
    const at::Tensor late = torch::cat({g.parameters[0].second.view({70, 10})});
    EXPECT_TRUE(torch::equal(late.view({-1}), Gathered::expected(late, step)))
        << "on rank " << g.comm.rank();
    gather.wait();
  }
}

TEST(ParameterGatherTest, WaitMakesAllParametersWhole) {
  Gathered g;
  ParameterGather gather(g.comm, g.buckets);
  g.update_own_slices(1);
  gather.start();
  gather.wait();
  for (const auto& [name, tensor] : g.parameters) {
    EXPECT_TRUE(torch::equal(tensor, Gathered::expected(tensor, 1))) << name;
  }
}
}  // namespace
}  // namespace trireme
