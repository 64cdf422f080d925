#include "trainer/precision.h"

#include <ATen/autocast_mode.h>

#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr double kGrowth = 2.0;
constexpr double kBackoff = 0.5;
constexpr int64_t kGrowthInterval = 2000;
}  // namespace

AutocastScope::AutocastScope(Precision precision, const std::string& device)
    : is_active_(precision != Precision::kFp32), is_cuda_(device.starts_with("cuda")) {
  if (!is_active_) return;
  const auto type = is_cuda_ ? at::kCUDA : at::kCPU;
  was_enabled_ = at::autocast::is_autocast_enabled(type);
  at::autocast::set_autocast_dtype(type, precision == Precision::kFp16 ? at::kHalf : at::kBFloat16);
  at::autocast::set_autocast_enabled(type, true);
  at::autocast::increment_nesting();
}

AutocastScope::~AutocastScope() {
  if (!is_active_) return;
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(is_cuda_ ? at::kCUDA : at::kCPU, was_enabled_);
}

LossScaler::LossScaler(Precision precision, const std::string& device)
    : is_active_(precision == Precision::kFp16) {
  const auto options = torch::TensorOptions().device(torch::Device(device));
  scale_ = torch::full({}, is_active_ ? State().scale : 1.0, options.dtype(torch::kFloat));
  good_steps_ = torch::zeros({}, options.dtype(torch::kInt));
}

void LossScaler::update(const at::Tensor& overflowed) {
  if (!is_active_) return;
  const torch::NoGradGuard no_grad;
  at::_amp_update_scale_(scale_, good_steps_, overflowed.to(torch::kFloat), kGrowth, kBackoff,
                         kGrowthInterval);
}

LossScaler::State LossScaler::state() const {
  return {.scale = scale_.item<double>(), .good_steps = good_steps_.item<int>()};
}

void LossScaler::restore(const State& state) {
  if (!is_active_) return;
  scale_.fill_(state.scale);
  good_steps_.fill_(state.good_steps);
}
}  // namespace trireme
