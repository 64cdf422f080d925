#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "core/error.h"
#include "trainer/optim/elementwise_kernels.h"
#include "trainer/optim/flat_state.h"
#include "trainer/optim/optimizer.h"
#include "trainer/optim/step_scalars.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr int64_t kGrain = int64_t{1} << 16;
}

Ema::Ema(double decay, std::vector<FlatBucket>& buckets, std::vector<FlatRange> ranges)
    : decay_(decay), buckets_(buckets), ranges_(std::move(ranges)) {
  const torch::NoGradGuard no_grad;
  if (ranges_.empty()) {
    for (const auto& bucket : buckets_) ranges_.push_back({0, bucket.params.numel()});
  }
  averages_ =
      std::make_unique<internal::FlatState>(buckets_, ranges_, std::vector<std::string>{""});
  scalars_ = std::make_unique<internal::StepScalars>(buckets_);
  for (size_t b = 0; b < buckets_.size(); ++b) {
    at::Tensor average = averages_->values(0, b);
    average.copy_(buckets_[b].params.narrow(0, ranges_[b].first, average.numel()));
  }
}

Ema::~Ema() = default;

void Ema::update(int64_t step, const at::Tensor& grad_scale) {
  const torch::NoGradGuard no_grad;
  const auto s = static_cast<double>(step);
  const double decay = std::min(decay_, (1 + s) / (10 + s));
  const bool on_host = grad_scale.is_cpu();
  if (on_host && !std::isfinite(*grad_scale.const_data_ptr<float>())) return;
  at::Tensor kept;   // 0-d
  at::Tensor added;  // 0-d
  if (!on_host) {    // The host does not wait to learn whether the update was made.
    scalars_->set(0, {decay, 1 - decay});
    const at::Tensor is_made = grad_scale.isfinite();
    kept = torch::where(is_made, scalars_->of(0)[0], 1.0);
    added = torch::where(is_made, scalars_->of(0)[1], 0.0);
  }
  for (size_t b = 0; b < buckets_.size(); ++b) {
    at::Tensor average = averages_->values(0, b);
    const at::Tensor params = buckets_[b].params.narrow(0, ranges_[b].first, average.numel());
    if (!on_host) {
      average.mul_(kept).addcmul_(params, added);
      continue;
    }
    float* averages = average.data_ptr<float>();
    const float* values = params.const_data_ptr<float>();
    at::parallel_for(0, params.numel(), kGrain, [&](int64_t begin, int64_t end) {
      internal::average_update(static_cast<float>(decay), static_cast<float>(1 - decay),
                               end - begin, averages + begin, values + begin);
    });
  }
}

NamedTensors Ema::tensors() const { return averages_->tensors(); }

void Ema::swap() {
  const torch::NoGradGuard no_grad;
  for (size_t b = 0; b < buckets_.size(); ++b) {
    at::Tensor average = averages_->values(0, b);
    at::Tensor values = buckets_[b].params.narrow(0, ranges_[b].first, average.numel());
    const at::Tensor params = values.detach().clone();
    values.copy_(average);
    average.copy_(params);
  }
}
}  // namespace trireme
