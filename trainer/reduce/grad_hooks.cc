#include "trainer/reduce/grad_hooks.h"

#include <utility>

#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include "trainer/torch_api.h"

namespace trireme {
namespace {
class CallbackHook : public torch::autograd::FunctionPostHook {
 public:
  explicit CallbackHook(std::function<void()> callback) : callback_(std::move(callback)) {}
  torch::autograd::variable_list operator()(const torch::autograd::variable_list& outputs,
                                            const torch::autograd::variable_list&) override {
    callback_();
    return outputs;
  }

 private:
  std::function<void()> callback_;
};
}  // namespace

struct GradHooks::Hook {
  // A std::shared_ptr up to LibTorch 2.12, an intrusive_ptr from 2.13 on.
  decltype(torch::autograd::impl::grad_accumulator(std::declval<const at::Tensor&>())) accumulator;
  uintptr_t key = 0;
};

GradHooks::GradHooks() = default;

GradHooks::~GradHooks() {
  for (const auto& hook : hooks_) hook->accumulator->del_post_hook(hook->key);
}

void GradHooks::add(const at::Tensor& parameter, std::function<void()> callback) {
  auto hook = std::make_unique<Hook>();
  hook->accumulator = torch::autograd::impl::grad_accumulator(parameter);
  hook->key = hook->accumulator->add_post_hook(std::make_unique<CallbackHook>(std::move(callback)));
  hooks_.push_back(std::move(hook));
}
}  // namespace trireme
