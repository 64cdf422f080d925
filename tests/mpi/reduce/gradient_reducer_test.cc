#include "trainer/reduce/gradient_reducer.h"

#include <gmock/gmock.h>

#include "tests/mpi/reduce/recording_communicator.h"
#include "tests/mpi/world.h"
#include "trainer/reduce/checksum.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
using Options = GradientReducer::Options;
using Mode = GradientReducer::Mode;
using Result = GradientReducer::Result;

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

BucketPlan small_buckets() {
  return plan_buckets({2, 1, 0}, {2100, 1000, 3},
                      {.bucket_elements = 1500, .first_bucket_elements = 300});
}

// What each parameter's gradient is after a step; of other ranks' slices zero with kOwnSlice.
std::vector<at::Tensor> reduce(Options options, int num_pieces, Backend backend) {
  const auto comm = make_communicator(test::world(), {.backend = backend});
  LinearModel model;
  GradientBuckets buckets(*comm, model.parameters, small_buckets());
  options.pieces_per_rank = num_pieces / comm->world_size();
  GradientReducer reducer(*comm, buckets, options);
  std::vector<at::Tensor> result;
  for (int repetition = 0; repetition < 2;
       ++repetition) {  // The second step starts from zero again.
    reducer.begin_step();
    for (int piece = 0; piece < options.pieces_per_rank; ++piece) {
      reducer.begin_piece();
      reducer.arm();
      model.backward(comm->rank() * options.pieces_per_rank + piece);
    }
    reducer.wait();
  }
  if (options.result == Result::kOwnSlice) {
    for (auto& bucket : buckets.flat()) {
      const int64_t slice = bucket.grads.numel() / comm->world_size();
      bucket.grads.narrow(0, 0, slice * comm->rank()).zero_();
      const int64_t end = slice * (comm->rank() + 1);
      bucket.grads.narrow(0, end, bucket.grads.numel() - end).zero_();
    }
  }
  for (auto& [name, tensor] : model.parameters) result.push_back(tensor.grad().clone());
  return result;
}

void add_over_ranks(std::vector<at::Tensor>& grads) {
  for (auto& tensor : grads) {
    auto values = tensor.to(torch::kDouble);
    test::world().all_reduce_sum(
        std::span(values.data_ptr<double>(), static_cast<size_t>(values.numel())));
    tensor = values.to(torch::kFloat);
  }
}

TEST(GradientReducerTest, TreeGivesTheSameBitsAtAnyNumberOfRanks) {
  for (const Backend backend : {Backend::kMpi, Backend::kAuto}) {
    for (const Result result : {Result::kEverywhere, Result::kOwnSlice}) {
      auto grads = reduce({.mode = Mode::kTree, .result = result}, 8, backend);
      if (result == Result::kOwnSlice) add_over_ranks(grads);  // Numbers plus zeros: exact.
      for (size_t i = 0; i < grads.size(); ++i) {
        EXPECT_TRUE(torch::equal(grads[i], expected_tree(i, 8, grads[i].sizes())))
            << "parameter " << i << " on rank " << test::world().rank();
      }
    }
  }
}

TEST(GradientReducerTest, SumsOverRanks) {
  const int ranks = test::world().world_size();
  for (const ScalarType wire :
       {ScalarType::kFloat32, ScalarType::kBFloat16, ScalarType::kFloat16}) {
    for (const Result result : {Result::kEverywhere, Result::kOwnSlice}) {
      auto grads = reduce({.result = result, .wire = wire}, ranks, Backend::kAuto);
      if (result == Result::kOwnSlice) add_over_ranks(grads);
      // Rounded when sent, and once more on the way back.
      const double unit = wire == ScalarType::kBFloat16 ? 1.0 / 128 : 1.0 / 1024;
      const double tolerance = wire == ScalarType::kFloat32 ? 1e-6 : 2.0 * ranks * unit;
      for (size_t i = 0; i < grads.size(); ++i) {
        at::Tensor sum = torch::zeros_like(grads[i]);
        for (int p = 0; p < ranks; ++p) sum += LinearModel::input(i, p, grads[i].sizes());
        EXPECT_TRUE(torch::allclose(grads[i], sum, 1e-5, tolerance))
            << "parameter " << i << " on rank " << test::world().rank();
      }
    }
  }
}

// A chain of layers: the gradient of layer k + 1 comes before that of layer k.
struct Chain {
  static constexpr int kLayers = 6;
  NamedParameters parameters;
  Chain() {
    for (int k = 0; k < kLayers; ++k) {
      parameters.emplace_back("layer" + std::to_string(k),
                              torch::full({512}, 1.0 + 0.1 * k).set_requires_grad(true));
    }
  }
  void backward(int rank) {
    at::Tensor x = torch::full({512}, static_cast<double>(rank + 1));
    for (const auto& [name, tensor] : parameters) x = x * tensor;
    x.sum().backward();
  }
  // d/dw_k = (rank + 1) times all other weights, summed over ranks.
  [[nodiscard]] double expected(int layer, int ranks) const {
    double product = 0.5 * ranks * (ranks + 1);
    for (int k = 0; k < kLayers; ++k) product *= k == layer ? 1.0 : 1.0 + 0.1 * k;
    return product;
  }
};

// A step of the chain with a bucket a layer, in which collectives begin when `releases_needed`
// says; every gradient is a release. What happened in it, in order; checks the sums.
std::vector<std::string> log_of_step(Communicator& real, Mode mode,
                                     test::RecordingCommunicator::MayBegin releases_needed) {
  test::RecordingCommunicator comm(real, std::move(releases_needed));
  Chain chain;
  GradientBuckets buckets(comm, chain.parameters, {{5}, {4}, {3}, {2}, {1}, {0}});
  GradientReducer reducer(comm, buckets, {.mode = mode});
  GradHooks after;  // Run after the reducer's, which was there first.
  for (int k = Chain::kLayers; k-- > 0;) {
    after.add(chain.parameters[static_cast<size_t>(k)].second, [&comm, k] {
      comm.note("gradient " + std::to_string(k));
      comm.release();
    });
  }
  reducer.begin_step();
  reducer.begin_piece();
  reducer.arm();
  chain.backward(comm.rank());
  comm.note("backward done");
  reducer.wait();
  for (int k = 0; k < Chain::kLayers; ++k) {
    const at::Tensor grad = chain.parameters[static_cast<size_t>(k)].second.grad();
    EXPECT_TRUE(torch::allclose(grad, torch::full_like(grad, chain.expected(k, comm.world_size()))))
        << "layer " << k << " on rank " << comm.rank();
  }
  return comm.log();
}

std::string gradient_of_bucket(int bucket) {
  return "gradient " + std::to_string(Chain::kLayers - 1 - bucket);
}

// Each rank lets bucket k's reduction begin only after backward has produced 1 + (k + rank) mod 3
// further gradients (or all): every bucket is late by another amount on every rank. A reducer that
// waited for a reduction inside backward would wait for ever.
TEST(GradientReducerTest, BackwardGoesOnWhileDelayedBucketsAreReduced) {
  const auto comm = make_communicator(test::world(), {});
  const auto needed = [rank = comm->rank()](int bucket) {
    return std::min(Chain::kLayers, bucket + 2 + (bucket + rank) % 3);
  };
  std::vector<std::string> expected;
  for (int bucket = 0; bucket < Chain::kLayers; ++bucket) {
    if (comm->world_size() > 1) expected.push_back("start " + std::to_string(bucket));
    expected.push_back(gradient_of_bucket(bucket));
  }
  expected.emplace_back("backward done");
  for (int bucket = 0; bucket < Chain::kLayers && comm->world_size() > 1; ++bucket) {
    expected.push_back("wait " + std::to_string(bucket));
  }
  EXPECT_THAT(log_of_step(*comm, Mode::kSum, needed), testing::ElementsAreArray(expected))
      << "on rank " << comm->rank();
}

// In tree mode a bucket's exchange is waited for, and its gather started, where the second bucket
// after it is full. Here an exchange begins only after the next bucket's gradient, which is as late
// as it may; a gather after the next one or two. A reducer that waited for an exchange where it
// started it, or for a gather inside backward, would wait for ever.
TEST(GradientReducerTest, BackwardGoesOnWhileDelayedTreesAreExchanged) {
  const auto comm = make_communicator(test::world(), {});
  const bool communicates = comm->world_size() > 1;
  std::vector<int> needed;  // By collective.
  std::vector<int> exchanges;
  std::vector<int> gathers;
  std::vector<std::string> expected;
  const auto start = [&](std::vector<int>& numbers, int releases) {
    numbers.push_back(static_cast<int>(needed.size()));
    expected.push_back("start " + std::to_string(numbers.back()));
    needed.push_back(std::min(Chain::kLayers, releases));
  };
  const auto finish = [&](int bucket) {
    expected.push_back("wait " + std::to_string(exchanges[static_cast<size_t>(bucket)]));
    start(gathers, bucket + 3 + (bucket + comm->rank()) % 2);
  };
  for (int bucket = 0; bucket < Chain::kLayers; ++bucket) {
    if (communicates && bucket >= 2) finish(bucket - 2);
    if (communicates) start(exchanges, bucket + 2);
    expected.push_back(gradient_of_bucket(bucket));
  }
  expected.emplace_back("backward done");
  for (int bucket = Chain::kLayers - 2; bucket < Chain::kLayers && communicates; ++bucket) {
    finish(bucket);
  }
  for (const int gather : gathers) expected.push_back("wait " + std::to_string(gather));
  const auto log = log_of_step(
      *comm, Mode::kTree, [&](int collective) { return needed[static_cast<size_t>(collective)]; });
  EXPECT_THAT(log, testing::ElementsAreArray(expected)) << "on rank " << comm->rank();
}

// Four parameters, a bucket each, whose gradients each rank produces in an order of its own:
// backwards, or from another one on. Collectives match up only because every rank starts them by
// the buckets' numbers, whichever are full.
TEST(GradientReducerTest, BucketsAreReducedInOrderWhicheverIsFullFirst) {
  const auto real = make_communicator(test::world(), {});
  const int rank = real->rank();
  const int ranks = real->world_size();
  for (const Mode mode : {Mode::kSum, Mode::kTree}) {
    test::RecordingCommunicator comm(*real);
    NamedParameters parameters;
    for (int k = 0; k < 4; ++k) {
      parameters.emplace_back("p" + std::to_string(k), torch::ones({300}).set_requires_grad(true));
    }
    GradientBuckets buckets(comm, parameters, {{0}, {1}, {2}, {3}});
    GradientReducer reducer(comm, buckets, {.mode = mode});
    reducer.begin_step();
    reducer.begin_piece();
    reducer.arm();
    for (int i = 0; i < 4; ++i) {
      const int k = rank % 2 == 0 ? 3 - i : (rank + i) % 4;
      (parameters[static_cast<size_t>(k)].second * ((k + 1.0) * (rank + 1))).sum().backward();
    }
    reducer.wait();

    std::vector<size_t> order;  // Of the buckets whose gradients were sent.
    for (const BufferView& sent : comm.sent()) {
      for (size_t b = 0; b < 4; ++b) {
        const at::Tensor& grads = buckets.flat()[b].grads;
        const auto* begin = grads.const_data_ptr<float>();
        const auto* data = static_cast<const float*>(sent.data);
        if (data >= begin && data < begin + grads.numel()) order.push_back(b);
      }
    }
    std::vector<size_t> expected;
    if (ranks > 1 && mode == Mode::kSum) expected = {0, 1, 2, 3};
    if (ranks > 1 && mode == Mode::kTree) expected = {0, 1, 0, 2, 1, 3, 2, 3};  // With gathers.
    EXPECT_THAT(order, testing::ElementsAreArray(expected)) << "on rank " << rank;
    for (int k = 0; k < 4; ++k) {
      const at::Tensor grad = parameters[static_cast<size_t>(k)].second.grad();
      EXPECT_TRUE(torch::equal(grad, torch::full_like(grad, (k + 1.0) * ranks * (ranks + 1) / 2)))
          << "parameter " << k << " on rank " << rank;
    }
  }
}

TEST(GradientReducerTest, OnlyTheLastMicroBatchCommunicates) {
  const auto real = make_communicator(test::world(), {});
  test::RecordingCommunicator comm(*real);
  Chain chain;
  GradientBuckets buckets(comm, chain.parameters, {{5, 4, 3}, {2, 1, 0}});
  GradientReducer reducer(comm, buckets, {});
  reducer.begin_step();
  reducer.begin_piece();
  chain.backward(comm.rank());
  chain.backward(comm.rank());
  EXPECT_THAT(comm.log(), testing::IsEmpty());
  reducer.arm();
  chain.backward(comm.rank());
  reducer.wait();
  const size_t messages = comm.world_size() > 1 ? 4 : 0;  // Started and waited for.
  EXPECT_EQ(comm.log().size(), messages);
  const at::Tensor grad = chain.parameters[0].second.grad();
  EXPECT_TRUE(
      torch::allclose(grad, torch::full_like(grad, 3 * chain.expected(0, comm.world_size()))));
}

TEST(ChecksumTest, IsTheSumOverRangesAndSeesEveryBit) {
  const at::Tensor values = torch::randn({1024});
  const std::vector<FlatBucket> buckets = {{.params = values, .grads = values, .segments = {}}};
  const auto sum = [&](std::vector<FlatRange> ranges) {
    return checksum_of(buckets, ranges, Checksummed::kGradients).item<int64_t>();
  };
  const int64_t whole = sum({{0, 1024}});
  EXPECT_EQ(whole, static_cast<int64_t>(static_cast<uint64_t>(sum({{0, 256}})) +
                                        static_cast<uint64_t>(sum({{256, 1024}}))));
  for (const int bit : {0, 1, 17, 30, 31}) {
    auto* word = reinterpret_cast<uint32_t*>(values.data_ptr<float>() + 300);
    *word ^= 1U << bit;
    EXPECT_NE(sum({{0, 1024}}), whole) << "bit " << bit;
    *word ^= 1U << bit;
  }
  const at::Tensor swapped = values.flip(0).contiguous();
  const std::vector<FlatBucket> other = {{.params = swapped, .grads = swapped, .segments = {}}};
  EXPECT_NE(checksum_of(other, {{0, 1024}}, Checksummed::kGradients).item<int64_t>(), whole);
}

TEST(GradientBucketsTest, ParametersAndGradientsAreViewsOfTheFlatBuffers) {
  const auto comm = make_communicator(test::world(), {});
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
}  // namespace trireme
