#include "trainer/precision.h"

#include <ATen/autocast_mode.h>

#include "trainer/torch_api.h"

namespace trireme {

AutocastScope::AutocastScope(Precision precision, const std::string& device)
    : is_active_(precision != Precision::kFp32), is_cuda_(device.starts_with("cuda")) {
  if (!is_active_) return;
  const auto type = is_cuda_ ? at::kCUDA : at::kCPU;
  was_enabled_ = at::autocast::is_autocast_enabled(type);
  at::autocast::set_autocast_dtype(type, at::kBFloat16);
  at::autocast::set_autocast_enabled(type, true);
  at::autocast::increment_nesting();
}

AutocastScope::~AutocastScope() {
  if (!is_active_) return;
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(is_cuda_ ? at::kCUDA : at::kCPU, was_enabled_);
}
}  // namespace trireme
