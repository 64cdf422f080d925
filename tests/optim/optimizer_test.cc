#include "trainer/optim/optimizer.h"

#include <cmath>
#include <filesystem>

#include <gmock/gmock.h>

#include "core/error.h"
#include "tests/temporary_folder.h"
#include "trainer/optim/parameter_groups.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr std::array kNames = {OptimizerName::kAdamW,    OptimizerName::kAdam, OptimizerName::kSgd,
                               OptimizerName::kLion,     OptimizerName::kLamb, OptimizerName::kLars,
                               OptimizerName::kAdafactor};
constexpr std::array kElementwise = {OptimizerName::kAdamW, OptimizerName::kAdam,
                                     OptimizerName::kSgd, OptimizerName::kLion};

at::Tensor random(int64_t count, int64_t seed) {
  return torch::randn({count}, at::detail::createCPUGenerator(static_cast<uint64_t>(seed)));
}

// Two tensors, (3, 67) and (5), with padding after each.
std::vector<FlatBucket> make_buckets() {
  FlatBucket bucket;
  bucket.params = torch::zeros({512});
  bucket.grads = torch::zeros({512});
  bucket.segments = {{"weight", {3, 67}, 0, 201}, {"bias", {5}, 256, 5}};
  bucket.params.narrow(0, 0, 201).copy_(random(201, 1));
  bucket.params.narrow(0, 256, 5).copy_(random(5, 2));
  return {bucket};
}

void set_gradients(std::vector<FlatBucket>& buckets, int64_t step) {
  buckets[0].grads.narrow(0, 0, 201).copy_(random(201, 10 * step));
  buckets[0].grads.narrow(0, 256, 5).copy_(random(5, 10 * step + 1));
}

void run_steps(Optimizer& optimizer, std::vector<FlatBucket>& buckets, int64_t first,
               int64_t last) {
  for (int64_t step = first; step <= last; ++step) {
    set_gradients(buckets, step);
    optimizer.step(step, 0.01, torch::full({}, 0.7));
  }
}

OptimOptions options_of(OptimizerName name) {
  OptimOptions options;
  options.name = name;
  options.weight_decay = 0.1;
  return options;
}

TEST(OptimizerTest, BitsDoNotDependOnRanges) {
  for (const auto name : kElementwise) {
    auto whole = make_buckets();
    run_steps(*make_optimizer(options_of(name), whole), whole, 1, 5);
    auto cut = make_buckets();
    std::vector<std::unique_ptr<Optimizer>> parts;
    const std::vector<int64_t> ends = {0, 1, 18, 33, 100, 259, 512};
    for (size_t i = 0; i + 1 < ends.size(); ++i) {
      parts.push_back(make_optimizer(options_of(name), cut, {{ends[i], ends[i + 1]}}));
    }
    for (int64_t step = 1; step <= 5; ++step) {
      for (auto& part : parts) run_steps(*part, cut, step, step);
    }
    EXPECT_TRUE(torch::equal(whole[0].params, cut[0].params)) << static_cast<int>(name);
  }
}

TEST(OptimizerTest, StateOfRangesSumsToTheWhole) {
  for (const auto name : kElementwise) {
    auto buckets = make_buckets();
    auto whole = make_optimizer(options_of(name), buckets);
    run_steps(*whole, buckets, 1, 3);
    auto low = make_optimizer(options_of(name), buckets, {{0, 128}});
    auto high = make_optimizer(options_of(name), buckets, {{128, 512}});
    const test::TemporaryFolder folder;
    const auto file = folder.path() / "state";
    write_safetensors(file, whole->state());
    const SafetensorsReader reader(file);
    low->load_state(reader);
    high->load_state(reader);
    const auto wanted = whole->state();
    const auto first = low->state();
    const auto second = high->state();
    ASSERT_EQ(first.size(), wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i) {
      EXPECT_EQ(first[i].first, wanted[i].first);
      EXPECT_TRUE(torch::equal(first[i].second + second[i].second, wanted[i].second));
    }
  }
}

TEST(OptimizerTest, GoesOnFromItsState) {
  for (const auto name : kNames) {
    auto straight = make_buckets();
    auto optimizer = make_optimizer(options_of(name), straight);
    run_steps(*optimizer, straight, 1, 6);

    auto resumed = make_buckets();
    auto before = make_optimizer(options_of(name), resumed);
    run_steps(*before, resumed, 1, 3);
    const test::TemporaryFolder folder;
    const auto file = folder.path() / "state";
    write_safetensors(file, before->state());
    auto after = make_optimizer(options_of(name), resumed);
    after->load_state(SafetensorsReader(file));
    run_steps(*after, resumed, 4, 6);
    EXPECT_TRUE(torch::equal(straight[0].params, resumed[0].params)) << static_cast<int>(name);
  }
}

TEST(OptimizerTest, PaddingStaysZero) {
  for (const auto name : kNames) {
    auto options = options_of(name);
    options.eps = 0.0;
    auto buckets = make_buckets();
    Ema ema(0.9, buckets);
    const auto optimizer = make_optimizer(options, buckets);
    for (int64_t step = 1; step <= 3; ++step) {
      run_steps(*optimizer, buckets, step, step);
      ema.update(step, torch::ones({}));
    }
    ema.swap();
    for (const auto& [first, count] : {std::pair{201, 55}, std::pair{261, 251}}) {
      const auto padding = buckets[0].params.narrow(0, first, count);
      EXPECT_TRUE(torch::equal(padding, torch::zeros_like(padding))) << static_cast<int>(name);
    }
  }
}

TEST(OptimizerTest, NormsOfWholeTensorsRefuseShards) {
  for (const auto name : {OptimizerName::kLamb, OptimizerName::kLars, OptimizerName::kAdafactor}) {
    auto buckets = make_buckets();
    EXPECT_THAT([&] { (void)make_optimizer(options_of(name), buckets, {{0, 128}}); },
                ThrowsMessage<UsageError>(HasSubstr("parallel.shard_optimizer")));
    EXPECT_NO_THROW((void)make_optimizer(options_of(name), buckets, {{0, 256}}));
  }
}

TEST(OptimizerTest, NamesTheStateThatIsMissingOrMisshapen) {
  auto buckets = make_buckets();
  const test::TemporaryFolder folder;
  const auto file = folder.path() / "state";
  write_safetensors(file, {{"exp_avg/weight", torch::zeros({67, 3})}});
  auto adam = make_optimizer(options_of(OptimizerName::kAdamW), buckets);
  EXPECT_THAT([&] { adam->load_state(SafetensorsReader(file)); },
              ThrowsMessage<InputError>(HasSubstr("exp_avg/weight")));
  auto sgd = make_optimizer(options_of(OptimizerName::kSgd), buckets);
  EXPECT_THAT([&] { sgd->load_state(SafetensorsReader(file)); },
              ThrowsMessage<InputError>(HasSubstr("momentum_buffer/weight")));
}

TEST(OptimizerTest, FirstAdamStepIsTheSign) {
  auto buckets = make_buckets();
  const auto before = buckets[0].params.clone();
  auto options = options_of(OptimizerName::kAdam);
  options.weight_decay = 0.0;
  set_gradients(buckets, 1);
  make_optimizer(options, buckets)->step(1, 0.25, torch::ones({}));
  const auto moved = before - buckets[0].params;
  EXPECT_TRUE(torch::allclose(moved, 0.25 * buckets[0].grads.sign(), 1e-4, 1e-5));
}

TEST(EmaTest, FollowsTheParameters) {
  auto buckets = make_buckets();
  const auto start = buckets[0].params.clone();
  Ema ema(0.5, buckets);
  buckets[0].params.mul_(3);
  ema.update(1, torch::ones({}));  // d = min(0.5, 2 / 11).
  const auto expected = start * (2.0 / 11) + start * 3 * (9.0 / 11);
  ema.swap();
  EXPECT_TRUE(torch::allclose(buckets[0].params, expected, 1e-6, 1e-7));
  ema.swap();
  EXPECT_TRUE(torch::equal(buckets[0].params, start * 3));
  EXPECT_EQ(ema.tensors()[0].first, "weight");
  EXPECT_EQ(ema.tensors()[0].second.sizes(), (at::IntArrayRef{3, 67}));
}

TEST(EmaTest, StaysWhereNoUpdateWasMade) {
  auto buckets = make_buckets();
  Ema ema(0.5, buckets);
  ema.update(1, torch::ones({}));
  const auto before = ema.tensors()[0].second.clone();
  buckets[0].params.mul_(3);
  ema.update(2, torch::full({}, std::numeric_limits<float>::quiet_NaN()));
  EXPECT_TRUE(torch::equal(ema.tensors()[0].second, before));
}

TEST(ParameterGroupsTest, NormsAndBiasesKeepTheirSizeByChoice) {
  for (const auto name : kNames) {
    auto buckets = make_buckets();
    OptimOptions options = options_of(name);
    options.decay_norms_and_biases = false;
    assign_parameter_groups(options, buckets);
    const auto optimizer = make_optimizer(options, buckets);
    const auto bias = buckets[0].params.narrow(0, 256, 5).clone();
    const auto weight = buckets[0].params.narrow(0, 0, 201).clone();
    optimizer->step(1, 0.01, torch::full({}, 1.0));  // Gradients are zero: only decay moves.
    EXPECT_TRUE(torch::equal(buckets[0].params.narrow(0, 256, 5), bias));
    EXPECT_LT(buckets[0].params.narrow(0, 0, 201).abs().sum().item<double>(),
              weight.abs().sum().item<double>());
  }
}

TEST(ParameterGroupsTest, RatesAreMultipliedByEveryPatternFound) {
  auto buckets = make_buckets();
  const std::string first = buckets[0].segments[0].name;
  OptimOptions options;
  options.lr_multipliers = {{"^" + first + "$", 0.5}, {".", 3.0}};
  assign_parameter_groups(options, buckets);
  EXPECT_EQ(buckets[0].segments[0].lr_multiplier, 1.5);
  EXPECT_EQ(buckets[0].segments[1].lr_multiplier, 3.0);
  options.lr_multipliers = {{"no such name", 2.0}};
  EXPECT_THROW(assign_parameter_groups(options, buckets), UsageError);
}

TEST(ParameterGroupsTest, RangesDoNotMatterWithGroups) {
  for (const auto name : kElementwise) {
    auto whole = make_buckets();
    auto parts = make_buckets();
    for (auto* buckets : {&whole, &parts}) {
      (*buckets)[0].segments[0].lr_multiplier = 0.5;
      (*buckets)[0].segments[1].decay_multiplier = 0.0;
    }
    const auto optimizer = make_optimizer(options_of(name), whole);
    run_steps(*optimizer, whole, 1, 3);
    for (const auto& [first, last] : {std::pair{0, 100}, {100, 258}, {258, 512}}) {
      auto bucket = make_buckets();
      bucket[0].segments = parts[0].segments;
      const auto part = make_optimizer(options_of(name), bucket, {{first, last}});
      run_steps(*part, bucket, 1, 3);
      EXPECT_TRUE(torch::equal(bucket[0].params.slice(0, first, last),
                               whole[0].params.slice(0, first, last)));
    }
  }
}

TEST(EmaTest, SwapKeepsTheStorage) {
  auto buckets = make_buckets();
  const auto view = buckets[0].params.narrow(0, 256, 5);
  Ema ema(0.5, buckets);
  buckets[0].params.zero_();
  ema.swap();
  EXPECT_GT(view.abs().sum().item<double>(), 0.0);
}

TEST(SumOfSquaresTest, IsExactBesideZeroPadding) {
  auto buckets = make_buckets();
  buckets[0].grads.narrow(0, 0, 201).fill_(3.0F);
  buckets[0].grads.narrow(0, 256, 5).fill_(3.0F);
  EXPECT_EQ(sum_of_squares(buckets).item<double>(), 9.0 * 206);
}

TEST(SumOfSquaresTest, HasTheSameBitsInAnyLayoutAndAtAnyThreads) {
  const int64_t count = 300'007;
  const auto values = random(count, 4);
  std::vector<double> sums;
  for (const int64_t padding : {0, 256, 5120}) {
    for (const int threads : {1, 2, 3}) {
      torch::set_num_threads(threads);
      FlatBucket bucket;
      bucket.grads = torch::zeros({padding + count + padding});
      bucket.params = torch::zeros_like(bucket.grads);
      bucket.segments = {{"a", {count}, padding, count}};
      bucket.grads.narrow(0, padding, count).copy_(values);
      sums.push_back(sum_of_squares({bucket}).item<double>());
    }
  }
  torch::set_num_threads(1);
  EXPECT_THAT(sums, ::testing::Each(sums.front()));
  const double expected = values.to(torch::kDouble).square().sum().item<double>();
  EXPECT_NEAR(sums.front(), expected, 1e-12 * expected);
}
}  // namespace
}  // namespace trireme
