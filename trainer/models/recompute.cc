#include "trainer/models/recompute.h"

#include <utility>

#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include "core/error.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Autocast as it was, for backward's thread.
class AutocastAgain {
 public:
  explicit AutocastAgain(at::DeviceType device)
      : device_(device),
        enabled_(at::autocast::is_autocast_enabled(device)),
        type_(at::autocast::get_autocast_dtype(device)) {}

  void run(const std::function<void()>& work) const {
    const bool before = at::autocast::is_autocast_enabled(device_);
    const at::ScalarType type_before = at::autocast::get_autocast_dtype(device_);
    at::autocast::set_autocast_enabled(device_, enabled_);
    at::autocast::set_autocast_dtype(device_, type_);
    at::autocast::increment_nesting();
    work();
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device_, before);
    at::autocast::set_autocast_dtype(device_, type_before);
  }

 private:
  at::DeviceType device_;
  bool enabled_;
  at::ScalarType type_;
};

// Held by the graph's node.
struct Recomputed : torch::CustomClassHolder {
  Recomputed(NetworkPart p, std::vector<bool> given, at::DeviceType device)
      : part(std::move(p)), is_given(std::move(given)), autocast(device) {}
  // `defined` holds the inputs that are defined, in their order.
  [[nodiscard]] variable_list run(const variable_list& defined) const {
    variable_list inputs;
    size_t next = 0;
    for (const bool given : is_given) inputs.push_back(given ? defined[next++] : at::Tensor());
    return part(inputs);
  }
  NetworkPart part;
  std::vector<bool> is_given;
  AutocastAgain autocast;
};

constexpr const char* kKey = "recomputed";

struct RecomputeFunction : torch::autograd::Function<RecomputeFunction> {
  // `anchor` requires a gradient, so that outputs do even where no input does.
  static variable_list forward(AutogradContext* context,
                               const c10::intrusive_ptr<Recomputed>& recomputed,
                               at::TensorList inputs, const at::Tensor& /*anchor*/) {
    context->saved_data[kKey] = c10::IValue::make_capsule(recomputed);
    context->save_for_backward(inputs.vec());
    return recomputed->run(inputs.vec());
  }

  static variable_list backward(AutogradContext* context, const variable_list& grad_outputs) {
    const auto capsule = context->saved_data[kKey].toCapsule();
    const auto& recomputed = static_cast<const Recomputed&>(*capsule);
    variable_list inputs;
    for (const auto& saved : context->get_saved_variables()) {
      inputs.push_back(saved.detach().set_requires_grad(saved.requires_grad()));
    }
    variable_list outputs;
    {
      const at::AutoGradMode with_grad(true);
      recomputed.autocast.run([&] { outputs = recomputed.run(inputs); });
    }
    check(outputs.size() == grad_outputs.size(), "a recomputed part has the same outputs again");
    variable_list roots;
    variable_list root_grads;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!grad_outputs[i].defined() || !outputs[i].requires_grad()) continue;
      roots.push_back(outputs[i]);
      root_grads.push_back(grad_outputs[i]);
    }
    torch::autograd::backward(roots, root_grads);
    variable_list grads = {at::Tensor()};  // Of the part.
    for (const auto& input : inputs) grads.push_back(input.grad());
    grads.emplace_back();  // Of the anchor.
    return grads;
  }
};
}  // namespace

std::vector<at::Tensor> recompute_in_backward(NetworkPart part,
                                              const std::vector<at::Tensor>& inputs) {
  if (!at::GradMode::is_enabled()) return part(inputs);
  std::vector<bool> is_given;
  variable_list defined;
  for (const auto& input : inputs) {
    is_given.push_back(input.defined());
    if (input.defined()) defined.push_back(input);
  }
  check(!defined.empty(), "a network part has an input");
  const at::DeviceType device = defined.front().device().type();
  const at::Tensor anchor = torch::empty({0}).requires_grad_(true);
  return RecomputeFunction::apply(
      c10::make_intrusive<Recomputed>(std::move(part), std::move(is_given), device),
      at::TensorList(defined), anchor);
}
}  // namespace trireme
