#include <algorithm>
#include <string>

#include "trainer/torch_api.h"

#include "core/error.h"
#include "trainer/optim/elementwise_kernels.h"
#include "trainer/optim/flat_state.h"
#include "trainer/optim/optimizer.h"

namespace trireme {
namespace {
constexpr int64_t kGrain = int64_t{1} << 16;
}

Ema::Ema(double decay, std::vector<FlatBucket>& buckets) : decay_(decay), buckets_(buckets) {
  const torch::NoGradGuard no_grad;
  for (const auto& bucket : buckets_) averages_.push_back(bucket.params.detach().clone());
}

void Ema::update(int64_t step) {
  const torch::NoGradGuard no_grad;
  const auto s = static_cast<double>(step);
  const double decay = std::min(decay_, (1 + s) / (10 + s));
  for (size_t b = 0; b < buckets_.size(); ++b) {
    const at::Tensor& params = buckets_[b].params;
    if (!params.is_cpu()) {
      averages_[b].mul_(decay).add_(params, 1 - decay);
      continue;
    }
    float* averages = averages_[b].data_ptr<float>();
    const float* values = params.const_data_ptr<float>();
    at::parallel_for(0, params.numel(), kGrain, [&](int64_t begin, int64_t end) {
      internal::average_update(static_cast<float>(decay), static_cast<float>(1 - decay),
                               end - begin, averages + begin, values + begin);
    });
  }
}

NamedTensors Ema::tensors() const {
  NamedTensors named;
  for (size_t b = 0; b < buckets_.size(); ++b) {
    for (const auto& segment : buckets_[b].segments) {
      named.emplace_back(
          segment.name,
          averages_[b].narrow(0, segment.offset, segment.num_elements).view(segment.shape));
    }
  }
  return named;
}

void Ema::load(const SafetensorsReader& reader) {
  const torch::NoGradGuard no_grad;
  for (auto& [name, average] : tensors()) {
    at::Tensor target = average;
    target.copy_(internal::read_state(reader, name, target.sizes().vec()));
  }
}

void Ema::swap() {
  const torch::NoGradGuard no_grad;
  for (size_t b = 0; b < buckets_.size(); ++b) {
    const at::Tensor params = buckets_[b].params.detach().clone();
    buckets_[b].params.copy_(averages_[b]);
    averages_[b].copy_(params);
  }
}
}  // namespace trireme
