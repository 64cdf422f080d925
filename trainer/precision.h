#pragma once
#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

#include "trainer/config.h"

namespace trireme {

// Runs the forward pass inside it in bf16 or fp16 by autocast over float32 parameters; nothing in
// fp32. Nests.
class AutocastScope {
 public:
  AutocastScope(Precision precision, const std::string& device);
  ~AutocastScope();
  AutocastScope(const AutocastScope&) = delete;
  AutocastScope& operator=(const AutocastScope&) = delete;

 private:
  bool is_active_ = false;
  bool was_enabled_ = false;
  bool is_cuda_ = false;
};

// The factor on the loss that keeps fp16 gradients from vanishing (Micikevicius et al., "Mixed
// Precision Training", 2018), with the rule of torch.amp.GradScaler: halved when a gradient
// overflows (that update is left out), doubled after 2000 steps without. Lies on the device, so
// that the host need not wait; powers of two, so that it changes no other digit. 1 and constant
// without fp16.
class LossScaler {
 public:
  struct State {
    double scale = 65536.0;
    int64_t good_steps = 0;  // Since the scale last changed.
  };
  LossScaler(Precision precision, const std::string& device);

  [[nodiscard]] const at::Tensor& scale() const noexcept { return scale_; }  // 0-d float32
  void update(const at::Tensor& overflowed);  // 0-d bool, the same on all ranks.
  [[nodiscard]] bool is_active() const noexcept { return is_active_; }

  // Waits for the device.
  [[nodiscard]] State state() const;
  void restore(const State& state);

 private:
  bool is_active_;
  at::Tensor scale_;
  at::Tensor good_steps_;  // 0-d int32
};
}  // namespace trireme
