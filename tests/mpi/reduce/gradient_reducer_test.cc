#include "trainer/reduce/gradient_reducer.h"

#include <gmock/gmock.h>

#include "dist/mpi_environment.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
MpiEnvironment* environment = nullptr;  // Set by main(), which owns it.

// Two layers whose gradients for piece p are exactly known: d/dw sum(w * x_p) = x_p.
struct LinearModel {
  NamedParameters parameters = {{"first", torch::zeros({300, 7})},
                                {"second", torch::zeros({1000})},
                                {"third", torch::zeros({3})}};
  LinearModel() {
    for (auto& [name, tensor] : parameters) tensor.set_requires_grad(true);
  }
  static at::Tensor input(size_t parameter, int piece, at::IntArrayRef shape) {
    auto generator =
        at::make_generator<at::CPUGeneratorImpl>(1000 * parameter + static_cast<size_t>(piece));
    return torch::randn(shape, generator);
  }
  void backward(int piece) {
    at::Tensor loss = torch::zeros({});
    for (size_t i = 0; i < parameters.size(); ++i) {
      auto& tensor = parameters[i].second;
      loss = loss + (tensor * input(i, piece, tensor.sizes())).sum();
    }
    loss.backward();
  }
};

at::Tensor expected_tree(size_t parameter, int num_pieces, at::IntArrayRef shape) {
  std::vector<at::Tensor> pieces;
  for (int p = 0; p < num_pieces; ++p)
    pieces.push_back(LinearModel::input(parameter, p, shape).flatten());
  return tree_sum(torch::stack(pieces)).view(shape);
}

std::vector<at::Tensor> reduce(GradientReducer::Mode mode, int num_pieces, Backend backend) {
  const auto comm = make_communicator(*environment, {.backend = backend});
  LinearModel model;
  const BucketPlan plan = plan_buckets({2, 1, 0}, {2100, 1000, 3},
                                       {.bucket_elements = 1500, .first_bucket_elements = 300});
  GradientBuckets buckets(*comm, model.parameters, plan);
  const int per_rank = num_pieces / comm->world_size();
  GradientReducer reducer(*comm, buckets, mode, per_rank);
  std::vector<at::Tensor> result;
  for (int repetition = 0; repetition < 2;
       ++repetition) {  // The second step starts from zero again.
    reducer.begin_step();
    for (int piece = 0; piece < per_rank; ++piece) {
      reducer.begin_piece();
      reducer.arm();
      model.backward(comm->rank() * per_rank + piece);
    }
    reducer.wait();
  }
  for (auto& [name, tensor] : model.parameters) result.push_back(tensor.grad().clone());
  return result;
}

TEST(GradientReducerTest, TreeGivesTheSameBitsAtAnyNumberOfRanks) {
  for (const Backend backend : {Backend::kMpi, Backend::kAuto}) {
    const auto grads = reduce(GradientReducer::Mode::kTree, 8, backend);
    for (size_t i = 0; i < grads.size(); ++i) {
      EXPECT_TRUE(torch::equal(grads[i], expected_tree(i, 8, grads[i].sizes())))
          << "parameter " << i << " on rank " << environment->rank();
    }
  }
}

TEST(GradientReducerTest, AllReduceSumsOverRanks) {
  const int ranks = environment->world_size();
  const auto grads = reduce(GradientReducer::Mode::kAllReduce, ranks, Backend::kAuto);
  for (size_t i = 0; i < grads.size(); ++i) {
    at::Tensor sum = torch::zeros_like(grads[i]);
    for (int p = 0; p < ranks; ++p) sum += LinearModel::input(i, p, grads[i].sizes());
    EXPECT_TRUE(torch::allclose(grads[i], sum, 1e-5, 1e-6))
        << "parameter " << i << " on rank " << environment->rank();
  }
}

TEST(GradientBucketsTest, ParametersAndGradientsAreViewsOfTheFlatBuffers) {
  const auto comm = make_communicator(*environment, {});
  LinearModel model;
  model.parameters[1].second.data().fill_(3.0);
  GradientBuckets buckets(*comm, model.parameters, {{0, 1}, {2}});
  const auto& bucket = buckets.flat()[0];
  EXPECT_EQ(bucket.segments[1].offset % 256, 0);
  EXPECT_EQ(bucket.params.numel() % (256 * comm->world_size()), 0);
  EXPECT_EQ(bucket.params[bucket.segments[1].offset].item<float>(), 3.0F);
  bucket.grads.fill_(2.0);
  EXPECT_EQ(model.parameters[1].second.grad().sum().item<float>(), 2000.0F);
}

TEST(PlanBucketsTest, FillsInOrderWithASmallFirstBucket) {
  const BucketPlan plan = plan_buckets({3, 2, 1, 0}, {256, 256, 256, 256},
                                       {.bucket_elements = 512, .first_bucket_elements = 256});
  EXPECT_THAT(plan, testing::ElementsAre(testing::ElementsAre(3), testing::ElementsAre(2, 1),
                                         testing::ElementsAre(0)));
}

TEST(MeasureGradientOrderTest, AnUnusedTensorIsAnErrorThatNamesIt) {
  NamedParameters parameters = {{"used", torch::ones({2}).set_requires_grad(true)},
                                {"idle", torch::ones({2}).set_requires_grad(true)}};
  try {
    (void)measure_gradient_order(parameters, [&] { parameters[0].second.sum().backward(); });
    FAIL() << "no error";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("'idle'"));
  }
}
}  // namespace

int run_tests(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  MpiEnvironment mpi;
  environment = &mpi;
  torch::set_num_threads(1);
  return RUN_ALL_TESTS();
}
}  // namespace trireme

int main(int argc, char** argv) { return trireme::run_tests(argc, argv); }
