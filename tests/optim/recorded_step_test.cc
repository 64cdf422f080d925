// A step on a device could be recorded once and run again: of two steps with other numbers and
// learning rates all operators and all numbers that the host gives them are equal, but for the
// setting of 0-d tensors. On the meta device operators run without memory, and one that made the
// host wait for a value would throw.
#ifndef NDEBUG
#define NDEBUG  // As in trainer/host_sync_counter.cc, and as there without the precompiled header.
#endif
#include <sstream>

#include <ATen/ExpandUtils.h>
#include <ATen/record_function.h>
#include <gmock/gmock.h>
#include <torch/library.h>

#include "trainer/optim/optimizer_kinds.h"
#include "trainer/torch_api.h"

namespace trireme::internal {
namespace {
constexpr std::array kNames = {OptimizerName::kAdamW,    OptimizerName::kAdam, OptimizerName::kSgd,
                               OptimizerName::kLion,     OptimizerName::kLamb, OptimizerName::kLars,
                               OptimizerName::kAdafactor};
constexpr std::array kElementwise = {OptimizerName::kAdamW, OptimizerName::kAdam,
                                     OptimizerName::kSgd, OptimizerName::kLion};

// LibTorch's operator hooks are plain functions.
thread_local std::vector<std::string>* recording = nullptr;

void describe(std::ostream& out, const at::IValue& value) {
  if (value.isTensor()) {
    const at::Tensor& tensor = value.toTensor();
    if (!tensor.defined()) return;
    out << ' ' << tensor.scalar_type() << tensor.sizes();
    if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) out << tensor.item<double>();
  } else if (value.isScalar()) {
    out << ' ' << value.toScalar().toDouble();
  } else if (value.isList()) {
    for (const at::IValue& element : value.toListRef()) describe(out, element);
  }
}

std::unique_ptr<at::ObserverContext> before_operator(const at::RecordFunction& function) {
  if (recording == nullptr) return nullptr;
  std::vector<std::string>* lines = std::exchange(recording, nullptr);  // Not what describe() does.
  std::ostringstream line;
  line.precision(17);
  line << function.name();
  const bool sets_scalar =
      line.str() == "aten::fill_" && function.inputs()[0].toTensor().dim() == 0;
  if (!sets_scalar) {
    for (const at::IValue& input : function.inputs()) describe(line, input);
  }
  lines->push_back(line.str());
  recording = lines;
  return nullptr;
}

template <typename Work>
std::vector<std::string> operators_of(const Work& work) {
  std::vector<std::string> lines;
  const auto watch = at::addThreadLocalCallback(at::RecordFunctionCallback(before_operator)
                                                    .needsInputs(true)
                                                    .scopes({at::RecordScope::FUNCTION}));
  recording = &lines;
  work();
  recording = nullptr;
  at::removeCallback(watch);
  return lines;
}

// The operators of a step that LibTorch's C++ side cannot run without memory.
TORCH_LIBRARY_IMPL(aten, Meta, library) {
  library.impl("abs.out", [](const at::Tensor& values, at::Tensor& out) -> at::Tensor& {
    out.resize_(values.sizes());
    return out;
  });
  library.impl("where.self",
               [](const at::Tensor& condition, const at::Tensor& values,
                  const at::Tensor& others) -> at::Tensor {
                 return at::empty(at::infer_size(condition.sizes(), values.sizes()),
                                  values.options());
               });
}

// Two groups: other rates and no decay for the bias.
std::vector<FlatBucket> make_buckets(at::Device device) {
  return {{.params = torch::ones({512}, torch::device(device)),
           .grads = torch::ones({512}, torch::device(device)),
           .segments = {{"weight", {3, 67}, 0, 201},
                        {.name = "bias",
                         .shape = {5},
                         .offset = 256,
                         .num_elements = 5,
                         .lr_multiplier = 2.0,
                         .decay_multiplier = 0.0}}}};
}

OptimOptions options_of(OptimizerName name) {
  OptimOptions options;
  options.name = name;
  options.weight_decay = 0.1;
  options.momentum = 0.9;
  return options;
}

void expect_equal_steps(Optimizer& optimizer, const at::Tensor& grad_scale, OptimizerName name) {
  optimizer.step(1, 0.25, grad_scale);  // Allocates the tensors that are set.
  const auto second = operators_of([&] { optimizer.step(2, 0.125, grad_scale); });
  const auto third = operators_of([&] { optimizer.step(3, 0.0625, grad_scale); });
  EXPECT_THAT(second, testing::Not(testing::IsEmpty())) << static_cast<int>(name);
  EXPECT_THAT(third, testing::ElementsAreArray(second)) << static_cast<int>(name);
}

// Adam's fused operators know no meta device.
TEST(RecordedStepTest, ElementwiseOperatorsTakeNoNumberOfTheSchedule) {
  for (const auto name : kElementwise) {
    auto buckets = make_buckets(torch::kCPU);
    const auto optimizer =
        make_elementwise_optimizer(options_of(name), buckets, {{0, 512}}, ComputePath::kTensorOps);
    expect_equal_steps(*optimizer, torch::full({}, 0.5), name);
  }
}

TEST(RecordedStepTest, NoNumberOfTheScheduleAndNoWaitOnADevice) {
  for (const auto name : kNames) {
    if (name == OptimizerName::kAdamW || name == OptimizerName::kAdam) continue;
    auto buckets = make_buckets(torch::kMeta);
    const auto optimizer = make_optimizer(options_of(name), buckets);
    expect_equal_steps(*optimizer, torch::full({}, 0.5, torch::device(torch::kMeta)), name);
  }
}

TEST(RecordedStepTest, TheMovingAverageTakesNoNumberOfTheStep) {
  auto buckets = make_buckets(torch::kMeta);
  Ema ema(0.999, buckets);
  const at::Tensor grad_scale = torch::full({}, 0.5, torch::device(torch::kMeta));
  ema.update(1, grad_scale);
  const auto second = operators_of([&] { ema.update(2, grad_scale); });
  EXPECT_THAT(second, testing::Not(testing::IsEmpty()));
  EXPECT_THAT(operators_of([&] { ema.update(3, grad_scale); }), testing::ElementsAreArray(second));
}

// The recorder sees a number that does change.
TEST(RecordedStepTest, SeesANumberThatTheHostGives) {
  at::Tensor values = torch::ones({3});
  const at::Tensor other = torch::ones({3});
  const auto with = [&](double number) {
    return std::pair(operators_of([&] { values.sub_(other, number); }),
                     operators_of([&] { values.mul_(number); }));
  };
  EXPECT_NE(with(0.25).first, with(0.125).first);
  EXPECT_NE(with(0.25).second, with(0.125).second);
}
}  // namespace
}  // namespace trireme::internal
