// Run on every number of ranks on one GPU: NCCL takes ranks for those of different hosts where
// their NCCL_HOSTIDs differ, and then goes over sockets. Skipped, saying so, without a GPU.
#include <cstdlib>
#include <string>

#include <gmock/gmock.h>

#include "dist/mpi_environment.h"
#include "trainer/optim/exact_sum.h"
#include "trainer/optim/optimizer.h"
#include "trainer/reduce/checksum.h"
#include "trainer/reduce/gradient_reducer.h"
#include "trainer/reduce/parameter_gather.h"
#include "trainer/session.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
MpiEnvironment* environment = nullptr;  // Set by main(), which owns it.

class GpuTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "skipped: no GPU";
  }
  static std::unique_ptr<Communicator> connect() {
    return make_communicator(*environment, {.backend = Backend::kNccl,
                                            .timeout_seconds = 60,
                                            .device = 0,
                                            .compute_stream = compute_stream_of("cuda:0")});
  }
  static at::Tensor tensor_of(const CommBuffer& buffer) {
    return torch::from_blob(buffer.view().data, {buffer.view().num_elements},
                            torch::dtype(torch::kFloat).device(torch::Device("cuda:0")));
  }
};

TEST_F(GpuTest, NcclSumsGathersAndExchanges) {
  const auto comm = connect();
  const int ranks = comm->world_size();
  const auto memory = comm->allocate(256 * ranks, ScalarType::kFloat32);
  at::Tensor values = tensor_of(*memory);
  values.fill_(comm->rank() + 1.0);
  comm->all_reduce(view_of(values), ReduceOp::kSum)->wait();
  EXPECT_TRUE(torch::equal(values.cpu(), torch::full({256 * ranks}, 0.5 * ranks * (ranks + 1))));
  at::Tensor mine = torch::full({256}, comm->rank(), values.options());
  comm->all_gather(view_of(mine), view_of(values))->wait();
  for (int rank = 0; rank < ranks; ++rank) {
    EXPECT_EQ(values[256 * rank + 7].item<float>(), static_cast<float>(rank));
  }
  at::Tensor exchanged = torch::empty_like(values);
  values.fill_(comm->rank());
  comm->all_to_all(view_of(values), view_of(exchanged))->wait();
  for (int rank = 0; rank < ranks; ++rank) {
    EXPECT_EQ(exchanged[256 * rank].item<float>(), static_cast<float>(rank));
  }
}

TEST_F(GpuTest, ReducerGivesTheSumsOfTheCpu) {
  const auto comm = connect();
  for (const auto mode : {GradientReducer::Mode::kSum, GradientReducer::Mode::kTree}) {
    NamedParameters parameters = {
        {"w", torch::zeros({3000}, torch::device(torch::Device("cuda:0")))}};
    parameters[0].second.set_requires_grad(true);
    GradientBuckets buckets(*comm, parameters, {{0}});
    GradientReducer reducer(*comm, buckets, {.mode = mode});
    reducer.begin_step();
    reducer.begin_piece();
    reducer.arm();
    const at::Tensor x = torch::arange(3000, torch::kFloat).cuda() * (comm->rank() + 1.0);
    (parameters[0].second * x).sum().backward();
    reducer.wait();
    const int ranks = comm->world_size();
    const at::Tensor sum = torch::arange(3000, torch::kFloat) * (0.5 * ranks * (ranks + 1));
    EXPECT_TRUE(torch::allclose(parameters[0].second.grad().cpu(), sum));
  }
}

TEST_F(GpuTest, NormsAndChecksumsHaveTheBitsOfTheCpu) {
  const at::Tensor values = torch::randn({5000});
  const std::vector<FlatBucket> host = {{.params = values, .grads = values, .segments = {}}};
  const std::vector<FlatBucket> device = {
      {.params = values.cuda(), .grads = values.cuda(), .segments = {}}};
  const std::vector<FlatRange> range = {{256, 5000}};
  EXPECT_EQ(checksum_of(host, range, Checksummed::kGradients).item<int64_t>(),
            checksum_of(device, range, Checksummed::kGradients).item<int64_t>());
  EXPECT_NEAR(value_of_digits(squares_digits(host, range)).item<double>(),
              value_of_digits(squares_digits(device, range)).item<double>(), 1e-9);
}

TEST_F(GpuTest, OptimizersFollowTheCpu) {
  for (const auto name : {OptimizerName::kAdamW, OptimizerName::kAdam, OptimizerName::kSgd,
                          OptimizerName::kLion, OptimizerName::kLamb, OptimizerName::kLars}) {
    const at::Tensor start = torch::randn({768});
    const at::Tensor grads = torch::randn({768});
    const auto run = [&](const std::string& where) {
      std::vector<FlatBucket> buckets = {
          {.params = start.to(torch::Device(where), torch::kFloat, false, true),
           .grads = grads.to(torch::Device(where), torch::kFloat, false, true),
           .segments = {{"w", {16, 48}, 0, 768}}}};
      OptimOptions options;
      options.name = name;
      const auto optimizer = make_optimizer(options, buckets);
      const auto scalar = torch::dtype(torch::kFloat).device(torch::Device(where));
      for (int step = 1; step <= 3; ++step) {
        optimizer->step(step, 1e-2, torch::full({}, 0.5, scalar));
      }
      optimizer->step(4, 1e-2, torch::full({}, NAN, scalar));  // Is left out.
      return buckets[0].params.cpu();
    };
    EXPECT_TRUE(torch::allclose(run("cuda:0"), run("cpu"), 1e-5, 1e-6)) << static_cast<int>(name);
  }
}
}  // namespace

static int run_tests(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  MpiEnvironment mpi;
  environment = &mpi;
  setenv("NCCL_HOSTID", ("rank" + std::to_string(mpi.rank())).c_str(), 1);
  return RUN_ALL_TESTS();
}
}  // namespace trireme

int main(int argc, char** argv) { return trireme::run_tests(argc, argv); }
