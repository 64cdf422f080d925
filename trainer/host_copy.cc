#include "trainer/host_copy.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include "dist/backoff.h"
#include "trainer/torch_api.h"

namespace trireme {

void HostCopy::start(const at::Tensor& values) {
  const torch::NoGradGuard no_grad;
  if (values.is_cpu()) {
    host_ = values.clone();
    return;
  }
  if (!host_.defined() || host_.sizes() != values.sizes()) {
    host_ = torch::empty(values.sizes(), values.options().device(torch::kCPU)).pin_memory();
  }
  host_.copy_(values, /*non_blocking=*/true);
  if (!arrived_) arrived_.emplace(values.device().type());
  const c10::impl::VirtualGuardImpl device(values.device().type());
  arrived_->record(device.getStream(values.device()));
}

const at::Tensor& HostCopy::wait(const std::function<void()>& poll) {
  if (arrived_) {
    Backoff backoff;
    while (!arrived_->query()) {
      poll();
      backoff.pause();
    }
  }
  return host_;
}
}  // namespace trireme
