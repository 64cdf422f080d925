#include "trainer/models/layers.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/philox.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
// torch's default for linear and convolutional layers, kaiming_uniform(a = sqrt(5)): 1/sqrt(fan
// in), for weights and biases.
Init fan_in_uniform(int64_t fan_in) {
  return {.kind = Init::Kind::kUniform, .bound = 1.0 / std::sqrt(static_cast<double>(fan_in))};
}

constexpr Init kOnes{.kind = Init::Kind::kOnes};
constexpr Init kZeros{.kind = Init::Kind::kZeros};

void fill_randomly(const NamedParameter& parameter, const PositionRandom& random) {
  float* const data = parameter.tensor.data_ptr<float>();
  const int64_t count = parameter.tensor.numel();
  const double bound = parameter.init.bound;
  if (parameter.init.kind == Init::Kind::kNormal) {
    random.normals({data, static_cast<size_t>(count)});
    return;
  }
  at::parallel_for(0, (count + 3) / 4, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const auto words = random.words(static_cast<uint32_t>(block));
      for (int64_t i = 4 * block; i < std::min(4 * block + 4, count); ++i) {
        data[i] = static_cast<float>((2.0 * uniform(words[i % 4]) - 1.0) * bound);
      }
    }
  });
}
}  // namespace

ParameterScope ParameterScope::operator/(std::string_view part) const {
  ParameterScope scope(*this);
  scope.prefix_ += std::string(part) + ".";
  return scope;
}

ParameterScope ParameterScope::operator/(int64_t index) const {
  return *this / std::to_string(index);
}

at::Tensor ParameterScope::add(std::string_view name, std::vector<int64_t> shape, Init init) const {
  at::Tensor tensor =
      torch::empty(shape, torch::TensorOptions().dtype(torch::kFloat).requires_grad(true));
  parameters_->push_back({prefix_ + std::string(name), tensor, init});
  return tensor;
}

const AdapterSite* ParameterScope::add_site(const at::Tensor& weight, int64_t stride,
                                            int64_t padding) const {
  if (sites_ == nullptr) return nullptr;
  sites_->push_back({.name = prefix_.substr(0, prefix_.size() - 1),
                     .weight = weight,
                     .stride = {stride, stride},
                     .padding = {padding, padding}});
  return &sites_->back();
}

at::Tensor with_adapter(const AdapterSite* site, const at::Tensor& x, at::Tensor y) {
  return site != nullptr && site->adapter != nullptr ? y + (*site->adapter)(x) : y;
}

Linear::Linear(const ParameterScope& scope, int64_t in, int64_t out, Bias bias)
    : weight_(scope.add("weight", {out, in}, fan_in_uniform(in))), site_(scope.add_site(weight_)) {
  if (bias == Bias::kPresent) bias_ = scope.add("bias", {out}, fan_in_uniform(in));
}

at::Tensor Linear::operator()(const at::Tensor& x) const {
  return with_adapter(site_, x, at::linear(x, weight_, bias_));
}

Conv2d::Conv2d(const ParameterScope& scope, int64_t in, int64_t out, Options options)
    : options_(options) {
  const int64_t kernel = options.kernel;
  const Init init = fan_in_uniform(in * kernel * kernel);
  weight_ = scope.add("weight", {out, in, kernel, kernel}, init);
  bias_ = scope.add("bias", {out}, init);
  site_ = scope.add_site(weight_, options.stride, options.padding);
}

at::Tensor Conv2d::operator()(const at::Tensor& x) const {
  const std::array<int64_t, 2> stride = {options_.stride, options_.stride};
  const std::array<int64_t, 2> padding = {options_.padding, options_.padding};
  return with_adapter(site_, x, at::conv2d(x, weight_, bias_, stride, padding));
}

GroupNorm::GroupNorm(const ParameterScope& scope, int64_t groups, int64_t channels, double eps)
    : weight_(scope.add("weight", {channels}, kOnes)),
      bias_(scope.add("bias", {channels}, kZeros)),
      groups_(groups),
      eps_(eps) {
  check(groups > 0 && channels % groups == 0, "group norm's groups divide its channels");
}

at::Tensor GroupNorm::operator()(const at::Tensor& x) const {
  return at::group_norm(x, groups_, weight_, bias_, eps_);
}

LayerNorm::LayerNorm(const ParameterScope& scope, int64_t channels, double eps)
    : weight_(scope.add("weight", {channels}, kOnes)),
      bias_(scope.add("bias", {channels}, kZeros)),
      eps_(eps) {}

at::Tensor LayerNorm::operator()(const at::Tensor& x) const {
  return at::layer_norm(x, weight_.sizes(), weight_, bias_, eps_);
}

at::Tensor activate(Activation activation, const at::Tensor& x) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kMish:
      return at::mish(x);
    case Activation::kGelu:
      return at::gelu(x);
    case Activation::kRelu:
      return at::relu(x);
  }
  throw InternalError("an activation is not one of the known ones; please report this.");
}

TimestepEmbedding::TimestepEmbedding(const ParameterScope& scope, int64_t in, int64_t out,
                                     Activation between, Activation after)
    : linear_1_(scope / "linear_1", in, out),
      linear_2_(scope / "linear_2", out, out),
      between_(between),
      after_(after) {}

at::Tensor TimestepEmbedding::operator()(const at::Tensor& x) const {
  return activate(after_, linear_2_(activate(between_, linear_1_(x))));
}

at::Tensor sinusoidal_embedding(const at::Tensor& timesteps, int64_t channels, SinusoidOrder order,
                                double freq_shift) {
  const int64_t half = channels / 2;
  const auto options = torch::TensorOptions().dtype(torch::kFloat).device(timesteps.device());
  const at::Tensor exponent =
      at::arange(half, options) * -std::log(10000.0) / (static_cast<double>(half) - freq_shift);
  const at::Tensor angles =
      timesteps.to(torch::kFloat).unsqueeze(1) * exponent.exp().unsqueeze(0);  // (N, half)
  const at::Tensor sin = angles.sin();
  const at::Tensor cos = angles.cos();
  at::Tensor embedding =
      order == SinusoidOrder::kSinCos ? at::cat({sin, cos}, 1) : at::cat({cos, sin}, 1);
  if (channels % 2 == 1) embedding = at::constant_pad_nd(embedding, {0, 1});
  return embedding;  // (N, channels)
}

void initialize_parameter(const NamedParameter& parameter, const PositionRandom& random) {
  const at::NoGradGuard no_grad;
  at::Tensor tensor = parameter.tensor;
  switch (parameter.init.kind) {
    case Init::Kind::kOnes:
      tensor.fill_(1.0F);
      break;
    case Init::Kind::kZeros:
      tensor.zero_();
      break;
    case Init::Kind::kUniform:
    case Init::Kind::kNormal:
      fill_randomly(parameter, random);
      break;
  }
}

void initialize_parameters(const std::vector<NamedParameter>& parameters, uint64_t seed) {
  uint64_t index = 0;
  for (const auto& parameter : parameters) {
    initialize_parameter(parameter, PositionRandom(seed, Stream::kInitialWeights, 0, index++));
  }
}
}  // namespace trireme
