#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "trainer/optim/flat_state.h"
#include "trainer/optim/optimizer_kinds.h"
#include "trainer/optim/segment_runs.h"
#include "trainer/optim/step_scalars.h"
#include "trainer/optim/tensor_norm.h"
#include "trainer/torch_api.h"

namespace trireme::internal {
namespace {
// torch.optim.Adafactor's defaults.
constexpr double kBeta2Decay = -0.8;
constexpr double kEps1 = std::numeric_limits<float>::epsilon();
constexpr double kEps2 = 1e-3;
constexpr double kClip = 1.0;

// One tensor with its second moments: by row and column over the last two dimensions, or by element
// where it has one dimension or none.
struct FactoredTensor {
  std::string name;
  at::Tensor params;
  at::Tensor grads;
  std::vector<std::pair<std::string, at::Tensor>> moments;
  size_t group = 0;
  bool is_held = false;
};

// Adafactor (Shazeer and Stern, 2018) as torch.optim.Adafactor computes it.
class AdafactorOptimizer final : public Optimizer {
 public:
  AdafactorOptimizer(const OptimOptions& options, const std::vector<FlatBucket>& buckets,
                     const std::vector<FlatRange>& ranges)
      : weight_decay_(options.weight_decay), scalars_(buckets) {
    for (size_t b = 0; b < buckets.size(); ++b) {
      for (const auto& segment : buckets[b].segments) {
        tensors_.push_back(make_tensor(buckets[b], segment, ranges[b]));
        tensors_.back().group = group_of(segment, groups_);
      }
    }
  }

  void step(int64_t step, double lr, const at::Tensor& grad_scale) override {
    const torch::NoGradGuard no_grad;
    const auto s = static_cast<double>(step);
    for (size_t group = 0; group < groups_.size(); ++group) {
      const double rate = lr * groups_[group].lr_multiplier;
      const double decay = weight_decay_ * groups_[group].decay_multiplier;
      scalars_.set(group,
                   {std::min(rate, 1 / std::sqrt(s)), 1 - rate * decay, std::pow(s, kBeta2Decay)});
    }
    for (auto& tensor : tensors_) {
      if (!tensor.is_held) continue;
      std::vector<at::Tensor> changed = {tensor.params};
      for (const auto& [slot, values] : tensor.moments) changed.push_back(values);
      change_if_finite(grad_scale, changed,
                       [&] { update(tensor, scalars_.of(tensor.group), grad_scale); });
    }
  }

  [[nodiscard]] NamedTensors state() const override {
    NamedTensors named;
    for (const auto& tensor : tensors_) {
      for (const auto& [slot, values] : tensor.moments) {
        named.emplace_back(slot + "/" + tensor.name, values);
      }
    }
    return named;
  }

  void load_state(const SafetensorsReader& reader) override {
    const torch::NoGradGuard no_grad;
    for (auto& tensor : tensors_) {
      for (auto& [slot, values] : tensor.moments) {
        const at::Tensor stored =
            read_state(reader, slot + "/" + tensor.name, values.sizes().vec());
        if (tensor.is_held) values.copy_(stored);
      }
    }
  }

  [[nodiscard]] int num_state_tensors() const noexcept override { return 0; }  // Sublinear.

 private:
  static FactoredTensor make_tensor(const FlatBucket& bucket, const FlatSegment& segment,
                                    const FlatRange& range) {
    FactoredTensor tensor;
    tensor.name = segment.name;
    tensor.params = segment_view(bucket.params, segment.offset, segment);
    tensor.grads = segment_view(bucket.grads, segment.offset, segment);
    tensor.is_held =
        segment.offset >= range.first && segment.offset + segment.num_elements <= range.last;
    const auto options = bucket.params.options();
    const size_t rank = segment.shape.size();
    if (rank < 2) {
      tensor.moments.emplace_back("variance", torch::zeros(segment.shape, options));
      return tensor;
    }
    auto rows = segment.shape;
    auto columns = segment.shape;
    rows[rank - 1] = 1;
    columns[rank - 2] = 1;
    tensor.moments.emplace_back("row_var", torch::zeros(rows, options));
    tensor.moments.emplace_back("col_var", torch::zeros(columns, options));
    return tensor;
  }

  static at::Tensor estimate_variance(FactoredTensor& tensor, const at::Tensor& grads,
                                      const at::Tensor& weight) {
    if (tensor.moments.size() == 1) {
      return tensor.moments[0].second.lerp_(grads.square(), weight).clone();
    }
    at::Tensor& rows = tensor.moments[0].second;
    at::Tensor& columns = tensor.moments[1].second;
    const at::Tensor squares = grads.square();
    rows.lerp_(squares.mean(-1, /*keepdim=*/true), weight);
    columns.lerp_(squares.mean(-2, /*keepdim=*/true), weight);
    return (rows * columns).div_(rows.mean(-2, /*keepdim=*/true).clamp_min_(kEps1));
  }

  // Reads of the step nothing but `scalars`.
  static void update(FactoredTensor& tensor, const std::vector<at::Tensor>& scalars,
                     const at::Tensor& grad_scale) {
    const at::Tensor& rho = scalars[0];
    const at::Tensor& decay = scalars[1];
    const at::Tensor& weight = scalars[2];
    const at::Tensor grads = tensor.grads * grad_scale;
    const double root_size = std::sqrt(static_cast<double>(tensor.params.numel()));
    const at::Tensor alpha = (norm_of(tensor.params) / root_size).clamp_min_(kEps2) * rho;
    tensor.params.mul_(decay);
    at::Tensor change = estimate_variance(tensor, grads, weight);
    change.clamp_min_(kEps1 * kEps1).rsqrt_().mul_(grads);
    const at::Tensor clip = (norm_of(change.contiguous()) / (root_size * kClip)).clamp_min_(1.0);
    tensor.params.sub_(change.mul_((alpha / clip).to(torch::kFloat)));
  }

  double weight_decay_;
  std::vector<FactoredTensor> tensors_;
  std::vector<SegmentGroup> groups_;
  StepScalars scalars_;
};
}  // namespace

std::unique_ptr<Optimizer> make_adafactor(const OptimOptions& options,
                                          std::vector<FlatBucket>& buckets,
                                          const std::vector<FlatRange>& ranges) {
  require_whole_tensors(buckets, ranges, "adafactor");
  return std::make_unique<AdafactorOptimizer>(options, buckets, ranges);
}
}  // namespace trireme::internal
