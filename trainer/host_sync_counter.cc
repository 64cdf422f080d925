// LibTorch is built with NDEBUG; without it here inputs() would look at a flag that nobody sets. So
// this file does without the precompiled header.
#ifndef NDEBUG
#define NDEBUG
#endif
#include "trainer/host_sync_counter.h"

#include <algorithm>
#include <array>
#include <string_view>

#include <ATen/record_function.h>

#include "core/error.h"

namespace trireme {
namespace {
// LibTorch's operator hooks are plain functions, so whom they tell is known by thread.
thread_local HostSyncCounter* counting = nullptr;

constexpr std::array<std::string_view, 9> kWaiting = {"aten::_local_scalar_dense",
                                                      "aten::is_nonzero",
                                                      "aten::equal",
                                                      "aten::nonzero",
                                                      "aten::allclose",
                                                      "aten::masked_select",
                                                      "aten::_unique2",
                                                      "aten::unique_dim",
                                                      "aten::repeat_interleave"};

bool is_blocking_copy(const at::RecordFunction& function) {
  if (std::string_view(function.name()) != "aten::copy_") return false;
  const auto inputs = function.inputs();  // self, src, non_blocking
  if (inputs.size() < 3 || !inputs[0].isTensor() || !inputs[1].isTensor()) return false;
  return inputs[0].toTensor().is_cpu() != inputs[1].toTensor().is_cpu() &&
         !(inputs[2].isBool() && inputs[2].toBool());
}

std::unique_ptr<at::ObserverContext> before_operator(const at::RecordFunction& function) {
  if (counting == nullptr) return nullptr;
  const std::string_view name = function.name();
  if (std::ranges::find(kWaiting, name) != kWaiting.end() || is_blocking_copy(function)) {
    counting->add(function.name());
  }
  return nullptr;
}
}  // namespace

HostSyncCounter::HostSyncCounter() {
  check(counting == nullptr, "one counter of host synchronisations in a thread");
  counting = this;
  watch_ = at::addThreadLocalCallback(at::RecordFunctionCallback(before_operator)
                                          .needsInputs(true)
                                          .scopes({at::RecordScope::FUNCTION}));
}

HostSyncCounter::~HostSyncCounter() {
  at::removeCallback(watch_);
  counting = nullptr;
}
}  // namespace trireme
