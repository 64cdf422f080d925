#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <string>
#include <utility>

#include "core/error.h"
#include "trainer/optim/elementwise_kernels.h"
#include "trainer/optim/flat_state.h"
#include "trainer/optim/optimizer_kinds.h"
#include "trainer/optim/segment_runs.h"
#include "trainer/optim/step_scalars.h"
#include "trainer/torch_api.h"

namespace trireme::internal {
namespace {
constexpr int64_t kGrain = int64_t{1} << 16;  // Elements below which a thread does not pay.

struct HostSlice {
  int64_t num_elements = 0;
  float* params = nullptr;
  const float* grads = nullptr;
  std::array<float*, 2> state = {};  // As many as there are slots.
};

struct TensorSlice {
  at::Tensor params;
  at::Tensor grads;
  std::array<at::Tensor, 2> state;
  [[nodiscard]] std::vector<at::Tensor> changed() const {
    std::vector<at::Tensor> tensors = {params};
    for (const auto& values : state) {
      if (values.defined()) tensors.push_back(values);
    }
    return tensors;
  }
};

// What a group's elements are updated with in a step.
struct GroupRates {
  double lr = 0.0;
  double weight_decay = 0.0;
};

// Cuts every range into slices of one group and leaves the arithmetic to its children.
class ElementwiseOptimizer : public Optimizer {
 public:
  ElementwiseOptimizer(const OptimOptions& options, std::vector<FlatBucket>& buckets,
                       const std::vector<FlatRange>& ranges, ComputePath path,
                       std::vector<std::string> slots)
      : options_(options),
        buckets_(buckets),
        ranges_(ranges),
        path_(path),
        runs_(make_segment_runs(buckets, ranges)),
        state_(buckets, ranges, std::move(slots)),
        scalars_(buckets) {}

  void step(int64_t step, double lr, const at::Tensor& grad_scale) override {
    const torch::NoGradGuard no_grad;
    const bool on_host = path_ == ComputePath::kHostLoops;
    const float scale = on_host ? *grad_scale.const_data_ptr<float>() : 1.0F;
    if (!std::isfinite(scale)) return;  // On a device it is looked at there.
    std::vector<GroupRates> rates;
    for (size_t group = 0; group < runs_.groups.size(); ++group) {
      rates.push_back({lr * runs_.groups[group].lr_multiplier, weight_decay_of(group)});
      if (!on_host) scalars_.set(group, scalars_of(step, rates.back()));
    }
    if (on_host) prepare(step, rates);
    for (size_t b = 0; b < buckets_.size(); ++b) {
      if (ranges_[b].first == ranges_[b].last) continue;
      if (on_host) {
        update_on_host(b, scale);
      } else {
        update_by_tensors(b, grad_scale);
      }
    }
  }
  [[nodiscard]] NamedTensors state() const override { return state_.tensors(); }
  void load_state(const SafetensorsReader& reader) override { state_.load(reader); }
  [[nodiscard]] int num_state_tensors() const noexcept override { return state_.num_slots(); }

 protected:
  // Before the updates of a step by host loops; one entry a group.
  virtual void prepare(int64_t step, const std::vector<GroupRates>& rates) = 0;
  virtual void update(const HostSlice& slice, size_t group, float scale) const = 0;
  // With tensor operations: what update() reads of a step.
  [[nodiscard]] virtual std::vector<double> scalars_of(int64_t step,
                                                       const GroupRates& rates) const = 0;
  // Reads of the step nothing but `scalars`. Changes nothing where grad_scale (0-d) is not finite.
  virtual void update(const std::vector<TensorSlice>& slices, size_t group,
                      const std::vector<at::Tensor>& scalars,
                      const at::Tensor& grad_scale) const = 0;

  [[nodiscard]] double weight_decay_of(size_t group) const {
    return options_.weight_decay * runs_.groups[group].decay_multiplier;
  }

  OptimOptions options_;

 private:
  void update_on_host(size_t bucket, float scale) {
    const auto [first, last] = ranges_[bucket];
    float* params = buckets_[bucket].params.data_ptr<float>();
    const float* grads = buckets_[bucket].grads.const_data_ptr<float>();
    std::array<float*, 2> values = {};
    for (int slot = 0; slot < state_.num_slots(); ++slot) {
      const auto index = static_cast<size_t>(slot);
      values[index] = state_.values(index, bucket).data_ptr<float>();
    }
    at::parallel_for(first, last, kGrain, [&, first = first](int64_t begin, int64_t end) {
      for (const SegmentRun& run : runs_.runs[bucket]) {
        const int64_t from = std::max(begin, run.first);
        const int64_t count = std::min(end, run.last) - from;
        if (count <= 0) continue;
        HostSlice slice{count, params + from, grads + from, {}};
        for (size_t slot = 0; slot < values.size(); ++slot) {
          if (values[slot] != nullptr) slice.state[slot] = values[slot] + (from - first);
        }
        update(slice, run.group, scale);
      }
    });
  }

  void update_by_tensors(size_t bucket, const at::Tensor& grad_scale) {
    const auto [first, last] = ranges_[bucket];
    const at::Tensor& grads = buckets_[bucket].grads;
    for (size_t group = 0; group < runs_.groups.size(); ++group) {
      std::vector<TensorSlice> slices;
      for (const SegmentRun& run : runs_.runs[bucket]) {
        if (run.group != group) continue;
        const int64_t count = run.last - run.first;
        TensorSlice slice{buckets_[bucket].params.narrow(0, run.first, count),
                          grads.narrow(0, run.first, count),
                          {}};
        for (int slot = 0; slot < state_.num_slots(); ++slot) {
          const auto index = static_cast<size_t>(slot);
          slice.state[index] = state_.values(index, bucket).narrow(0, run.first - first, count);
        }
        slices.push_back(std::move(slice));
      }
      if (!slices.empty()) update(slices, group, scalars_.of(group), grad_scale);
    }
  }

  std::vector<FlatBucket>& buckets_;
  std::vector<FlatRange> ranges_;
  ComputePath path_;
  SegmentRuns runs_;
  FlatState state_;
  StepScalars scalars_;
};

// Adam (Kingma and Ba, 2015) and AdamW (Loshchilov and Hutter, 2019) as torch.optim has them.
class AdamOptimizer final : public ElementwiseOptimizer {
 public:
  AdamOptimizer(const OptimOptions& options, std::vector<FlatBucket>& buckets,
                const std::vector<FlatRange>& ranges, ComputePath path)
      : ElementwiseOptimizer(options, buckets, ranges, path, {"exp_avg", "exp_avg_sq"}) {}

 protected:
  void prepare(int64_t step, const std::vector<GroupRates>& rates) override {
    const auto [beta1, beta2] = options_.betas;
    const auto s = static_cast<double>(step);
    const bool is_decoupled = options_.name == OptimizerName::kAdamW;
    factors_.clear();
    for (const auto& [lr, weight_decay] : rates) {
      factors_.push_back(
          {.beta1 = static_cast<float>(beta1),
           .one_minus_beta1 = static_cast<float>(1 - beta1),
           .beta2 = static_cast<float>(beta2),
           .one_minus_beta2 = static_cast<float>(1 - beta2),
           .step_size = static_cast<float>(lr / (1 - std::pow(beta1, s))),
           .inverse_root_bias2 = static_cast<float>(1 / std::sqrt(1 - std::pow(beta2, s))),
           // Never 0: padding divides 0 by it.
           .eps = std::max(static_cast<float>(options_.eps), FLT_MIN),
           .decay = static_cast<float>(is_decoupled ? 1 - lr * weight_decay : 1.0),
           .l2 = static_cast<float>(is_decoupled ? 0.0 : weight_decay)});
    }
  }
  void update(const HostSlice& slice, size_t group, float scale) const override {
    adam_update(factors_[group], scale, slice.num_elements, slice.params, slice.grads,
                slice.state[0], slice.state[1]);
  }
  [[nodiscard]] std::vector<double> scalars_of(int64_t step,
                                               const GroupRates& rates) const override {
    return {static_cast<double>(step), rates.lr};
  }
  void update(const std::vector<TensorSlice>& slices, size_t group,
              const std::vector<at::Tensor>& scalars, const at::Tensor& grad_scale) const override {
    std::vector<at::Tensor> params;
    std::vector<at::Tensor> grads;
    std::vector<at::Tensor> exp_avg;
    std::vector<at::Tensor> exp_avg_sq;
    for (const auto& slice : slices) {
      params.push_back(slice.params);
      grads.push_back(slice.grads);
      exp_avg.push_back(slice.state[0]);
      exp_avg_sq.push_back(slice.state[1]);
    }
    const std::vector<at::Tensor> steps(slices.size(), scalars[0]);
    const at::Tensor& lr = scalars[1];
    // These kernels divide by their scale.
    const at::Tensor divisor = grad_scale.reciprocal();
    const at::Tensor is_bad = grad_scale.isfinite().logical_not().to(torch::kFloat);
    const double eps = std::max(options_.eps, static_cast<double>(FLT_MIN));
    const double weight_decay = weight_decay_of(group);
    if (options_.name == OptimizerName::kAdamW) {
      at::_fused_adamw_(params, grads, exp_avg, exp_avg_sq, {}, steps, lr, options_.betas[0],
                        options_.betas[1], weight_decay, eps, /*amsgrad=*/false,
                        /*maximize=*/false, divisor, is_bad);
    } else {
      at::_fused_adam_(params, grads, exp_avg, exp_avg_sq, {}, steps, lr, options_.betas[0],
                       options_.betas[1], weight_decay, eps, /*amsgrad=*/false,
                       /*maximize=*/false, divisor, is_bad);
    }
  }

 private:
  std::vector<AdamFactors> factors_;  // By group.
};

// torch.optim.SGD: momentum without dampening, weight decay added to the gradient.
class SgdOptimizer final : public ElementwiseOptimizer {
 public:
  SgdOptimizer(const OptimOptions& options, std::vector<FlatBucket>& buckets,
               const std::vector<FlatRange>& ranges, ComputePath path)
      : ElementwiseOptimizer(options, buckets, ranges, path,
                             options.momentum > 0 ? std::vector<std::string>{"momentum_buffer"}
                                                  : std::vector<std::string>{}) {}

 protected:
  void prepare(int64_t, const std::vector<GroupRates>& rates) override {
    factors_.clear();
    for (const auto& [lr, weight_decay] : rates) {
      factors_.push_back(
          {.lr = static_cast<float>(lr),
           .momentum = static_cast<float>(options_.momentum),
           .look_ahead = options_.nesterov ? static_cast<float>(options_.momentum) : 1.0F,
           .own = options_.nesterov ? 1.0F : 0.0F,
           .l2 = static_cast<float>(weight_decay)});
    }
  }
  void update(const HostSlice& slice, size_t group, float scale) const override {
    if (slice.state[0] == nullptr) {
      sgd_update_without_momentum(factors_[group], scale, slice.num_elements, slice.params,
                                  slice.grads);
    } else {
      sgd_update(factors_[group], scale, slice.num_elements, slice.params, slice.grads,
                 slice.state[0]);
    }
  }
  [[nodiscard]] std::vector<double> scalars_of(int64_t, const GroupRates& rates) const override {
    return {rates.lr};
  }
  void update(const std::vector<TensorSlice>& slices, size_t group,
              const std::vector<at::Tensor>& scalars, const at::Tensor& grad_scale) const override {
    const at::Tensor& lr = scalars[0];
    for (const auto& slice : slices) {
      change_if_finite(grad_scale, slice.changed(), [&] {
        at::Tensor params = slice.params;
        at::Tensor buffer = slice.state[0];
        const at::Tensor grads = (slice.grads * grad_scale).add_(params, weight_decay_of(group));
        if (!buffer.defined()) {
          params.addcmul_(grads, lr, -1);
          return;
        }
        buffer.mul_(options_.momentum).add_(grads);
        params.addcmul_(options_.nesterov ? grads.add(buffer, options_.momentum) : buffer, lr, -1);
      });
    }
  }

 private:
  std::vector<SgdFactors> factors_;  // By group.
};

// Lion (Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023).
class LionOptimizer final : public ElementwiseOptimizer {
 public:
  LionOptimizer(const OptimOptions& options, std::vector<FlatBucket>& buckets,
                const std::vector<FlatRange>& ranges, ComputePath path)
      : ElementwiseOptimizer(options, buckets, ranges, path, {"exp_avg"}) {}

 protected:
  void prepare(int64_t, const std::vector<GroupRates>& rates) override {
    const auto [beta1, beta2] = options_.betas;
    factors_.clear();
    for (const auto& [lr, weight_decay] : rates) {
      factors_.push_back({.lr = static_cast<float>(lr),
                          .beta1 = static_cast<float>(beta1),
                          .one_minus_beta1 = static_cast<float>(1 - beta1),
                          .beta2 = static_cast<float>(beta2),
                          .one_minus_beta2 = static_cast<float>(1 - beta2),
                          .decay = static_cast<float>(1 - lr * weight_decay)});
    }
  }
  void update(const HostSlice& slice, size_t group, float scale) const override {
    lion_update(factors_[group], scale, slice.num_elements, slice.params, slice.grads,
                slice.state[0]);
  }
  [[nodiscard]] std::vector<double> scalars_of(int64_t, const GroupRates& rates) const override {
    return {rates.lr, 1 - rates.lr * rates.weight_decay};
  }
  void update(const std::vector<TensorSlice>& slices, size_t group,
              const std::vector<at::Tensor>& scalars, const at::Tensor& grad_scale) const override {
    const auto [beta1, beta2] = options_.betas;
    const at::Tensor& lr = scalars[0];
    const at::Tensor& decay = scalars[1];
    for (const auto& slice : slices) {
      change_if_finite(grad_scale, slice.changed(), [&, beta1 = beta1, beta2 = beta2] {
        at::Tensor params = slice.params;
        at::Tensor average = slice.state[0];
        const at::Tensor grads = slice.grads * grad_scale;
        const at::Tensor direction = (average * beta1).add_(grads, 1 - beta1).sign_();
        average.mul_(beta2).add_(grads, 1 - beta2);
        params.mul_(decay).addcmul_(direction, lr, -1);
      });
    }
  }

 private:
  std::vector<LionFactors> factors_;  // By group.
};
}  // namespace

std::unique_ptr<Optimizer> make_elementwise_optimizer(const OptimOptions& options,
                                                      std::vector<FlatBucket>& buckets,
                                                      const std::vector<FlatRange>& ranges,
                                                      ComputePath path) {
  switch (options.name) {
    case OptimizerName::kAdamW:
    case OptimizerName::kAdam:
      return std::make_unique<AdamOptimizer>(options, buckets, ranges, path);
    case OptimizerName::kSgd:
      return std::make_unique<SgdOptimizer>(options, buckets, ranges, path);
    case OptimizerName::kLion:
      return std::make_unique<LionOptimizer>(options, buckets, ranges, path);
    default:
      throw InternalError("not an element-wise optimizer");
  }
}
}  // namespace trireme::internal
