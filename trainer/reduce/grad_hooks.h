#pragma once
#include <functional>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

namespace trireme {

// Callbacks that run when autograd has accumulated a parameter's gradient. Owns the accumulators
// (a parameter holds its own weakly: the hook would vanish with it) and removes the hooks on
// destruction. Callbacks run on the thread of backward(), one at a time on one device.
class GradHooks {
 public:
  GradHooks();
  ~GradHooks();
  GradHooks(const GradHooks&) = delete;
  GradHooks& operator=(const GradHooks&) = delete;

  void add(const at::Tensor& parameter, std::function<void()> callback);

 private:
  struct Hook;
  std::vector<std::unique_ptr<Hook>> hooks_;
};
}  // namespace trireme
