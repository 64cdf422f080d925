#pragma once
#include <functional>
#include <optional>

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

namespace trireme {

// A device tensor's way to the host, which the host need not wait for: start() enqueues the copy
// into page-locked memory behind the work issued so far, wait() blocks until it has arrived. On a
// CPU start() is the copy. One copy at a time. Local.
class HostCopy {
 public:
  void start(const at::Tensor& values);
  // `poll` is called while the device is waited for: it throws where waiting has become pointless
  // (a lost peer). The tensor is valid until the next start().
  [[nodiscard]] const at::Tensor& wait(const std::function<void()>& poll);

 private:
  at::Tensor host_;
  std::optional<c10::Event> arrived_;
};
}  // namespace trireme
