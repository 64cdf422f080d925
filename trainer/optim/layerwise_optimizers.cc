#include <cmath>
#include <utility>

#include "trainer/optim/flat_state.h"
#include "trainer/optim/optimizer_kinds.h"
#include "trainer/optim/segment_runs.h"
#include "trainer/optim/step_scalars.h"
#include "trainer/optim/tensor_norm.h"
#include "trainer/torch_api.h"

namespace trireme::internal {
namespace {
constexpr double kLarsTrust = 0.001;  // Eta of the paper, its value there.

// `numerator / denominator`, or 1 where either is 0. 0-d, float32.
at::Tensor ratio_or_one(const at::Tensor& numerator, const at::Tensor& denominator) {
  const at::Tensor ratio = (numerator / denominator).to(torch::kFloat);
  return torch::where(torch::minimum(numerator, denominator) > 0, ratio, torch::ones_like(ratio));
}

// Updates whole tensors, one after the other.
class LayerwiseOptimizer : public Optimizer {
 public:
  LayerwiseOptimizer(const OptimOptions& options, std::vector<FlatBucket>& buckets,
                     const std::vector<FlatRange>& ranges, std::vector<std::string> slots)
      : options_(options),
        buckets_(buckets),
        ranges_(ranges),
        state_(buckets, ranges, std::move(slots)),
        scalars_(buckets) {
    for (const auto& bucket : buckets) {
      auto& groups = segment_groups_.emplace_back();
      for (const auto& segment : bucket.segments) groups.push_back(group_of(segment, groups_));
    }
  }

  void step(int64_t step, double lr, const at::Tensor& grad_scale) override {
    const torch::NoGradGuard no_grad;
    for (size_t group = 0; group < groups_.size(); ++group) {
      scalars_.set(group, scalars_of(step, lr * groups_[group].lr_multiplier));
    }
    for (size_t b = 0; b < buckets_.size(); ++b) {
      for (size_t i = 0; i < buckets_[b].segments.size(); ++i) {
        const auto& segment = buckets_[b].segments[i];
        const bool is_held = segment.offset >= ranges_[b].first &&
                             segment.offset + segment.num_elements <= ranges_[b].last;
        if (!is_held) continue;
        const auto view = [&](const at::Tensor& flat) {
          return segment_view(flat, segment.offset, segment);
        };
        const at::Tensor params = view(buckets_[b].params);
        std::vector<at::Tensor> changed = {params};
        std::vector<at::Tensor> state;
        for (int slot = 0; slot < state_.num_slots(); ++slot) {
          state.push_back(state_.segment(static_cast<size_t>(slot), b, segment));
          changed.push_back(state.back());
        }
        change_if_finite(grad_scale, changed, [&] {
          update(scalars_.of(segment_groups_[b][i]),
                 options_.weight_decay * segment.decay_multiplier, params,
                 view(buckets_[b].grads) * grad_scale, state);
        });
      }
    }
  }
  [[nodiscard]] NamedTensors state() const override { return state_.tensors(); }
  void load_state(const SafetensorsReader& reader) override { state_.load(reader); }
  [[nodiscard]] int num_state_tensors() const noexcept override { return state_.num_slots(); }

 protected:
  // What update() reads of a step.
  [[nodiscard]] virtual std::vector<double> scalars_of(int64_t step, double lr) const = 0;
  // All of one tensor's shape; `grads` is a copy that may be changed. Reads of the step nothing but
  // `scalars`.
  virtual void update(const std::vector<at::Tensor>& scalars, double weight_decay,
                      at::Tensor params, at::Tensor grads,
                      std::vector<at::Tensor>& state) const = 0;

  OptimOptions options_;

 private:
  std::vector<FlatBucket>& buckets_;
  std::vector<FlatRange> ranges_;
  FlatState state_;
  std::vector<SegmentGroup> groups_;
  std::vector<std::vector<size_t>> segment_groups_;  // By bucket and segment.
  StepScalars scalars_;
};

// LAMB (You et al., "Large Batch Optimization for Deep Learning", 2020), algorithm 2, with bias
// correction and the identity for phi.
class LambOptimizer final : public LayerwiseOptimizer {
 public:
  LambOptimizer(const OptimOptions& options, std::vector<FlatBucket>& buckets,
                const std::vector<FlatRange>& ranges)
      : LayerwiseOptimizer(options, buckets, ranges, {"exp_avg", "exp_avg_sq"}) {}

 protected:
  [[nodiscard]] std::vector<double> scalars_of(int64_t step, double lr) const override {
    const auto [beta1, beta2] = options_.betas;
    const auto s = static_cast<double>(step);
    return {lr, 1 - std::pow(beta1, s), std::sqrt(1 - std::pow(beta2, s))};
  }
  void update(const std::vector<at::Tensor>& scalars, double weight_decay, at::Tensor params,
              at::Tensor grads, std::vector<at::Tensor>& state) const override {
    const auto [beta1, beta2] = options_.betas;
    const at::Tensor& lr = scalars[0];
    const at::Tensor& bias1 = scalars[1];
    const at::Tensor& root_bias2 = scalars[2];
    state[0].lerp_(grads, 1 - beta1);
    state[1].mul_(beta2).addcmul_(grads, grads, 1 - beta2);
    const at::Tensor denominator = (state[1].sqrt() / root_bias2).add_(options_.eps);
    at::Tensor direction = (state[0] / bias1).div_(denominator);
    direction.add_(params, weight_decay);
    direction.mul_(ratio_or_one(norm_of(params), norm_of(direction)));
    params.addcmul_(direction, lr, -1);
  }
};

// LARS (You et al., "Large Batch Training of Convolutional Networks", 2017): the gradient with its
// weight decay, scaled to the tensor's norm, goes through torch.optim.SGD's momentum.
class LarsOptimizer final : public LayerwiseOptimizer {
 public:
  LarsOptimizer(const OptimOptions& options, std::vector<FlatBucket>& buckets,
                const std::vector<FlatRange>& ranges)
      : LayerwiseOptimizer(options, buckets, ranges, {"momentum_buffer"}) {}

 protected:
  [[nodiscard]] std::vector<double> scalars_of(int64_t, double lr) const override { return {lr}; }
  void update(const std::vector<at::Tensor>& scalars, double weight_decay, at::Tensor params,
              at::Tensor grads, std::vector<at::Tensor>& state) const override {
    const at::Tensor& lr = scalars[0];
    const at::Tensor norm = norm_of(params);
    const at::Tensor grad_norm = norm_of(grads);
    const at::Tensor trust = torch::where(
        grad_norm > 0, ratio_or_one(kLarsTrust * norm, grad_norm + weight_decay * norm),
        torch::ones({}, params.options()));
    grads.add_(params, weight_decay).mul_(trust);
    state[0].mul_(options_.momentum).add_(grads);
    params.addcmul_(options_.nesterov ? grads.add_(state[0], options_.momentum) : state[0], lr, -1);
  }
};
}  // namespace

std::unique_ptr<Optimizer> make_layerwise_optimizer(const OptimOptions& options,
                                                    std::vector<FlatBucket>& buckets,
                                                    const std::vector<FlatRange>& ranges) {
  const bool is_lamb = options.name == OptimizerName::kLamb;
  require_whole_tensors(buckets, ranges, is_lamb ? "lamb" : "lars");
  if (is_lamb) return std::make_unique<LambOptimizer>(options, buckets, ranges);
  return std::make_unique<LarsOptimizer>(options, buckets, ranges);
}
}  // namespace trireme::internal
