#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include "core/philox.h"
#include "trainer/models/adapter_site.h"

namespace trireme {

// How a parameter starts where a model begins from random weights.
struct Init {
  enum class Kind { kUniform, kNormal, kOnes, kZeros };
  Kind kind = Kind::kZeros;
  double bound = 0.0;  // kUniform draws from [-bound, bound).
};

struct NamedParameter {
  std::string name;
  at::Tensor tensor;
  Init init;
};

// Where a layer under construction puts its parameters: a list, and the prefix of their names. The
// list is in the order of construction, which is that of diffusers' named_parameters().
class ParameterScope {
 public:
  // `parameters` outlives the scope; so does `sites`, which lists the layers that an adapter can
  // add to. Without it there are none.
  explicit ParameterScope(std::vector<NamedParameter>& parameters, AdapterSites* sites = nullptr)
      : parameters_(&parameters), sites_(sites) {}
  // The scope of a part: `scope / "attn1" / "to_q"` adds names `attn1.to_q.…`.
  [[nodiscard]] ParameterScope operator/(std::string_view part) const;
  [[nodiscard]] ParameterScope operator/(int64_t index) const;
  // Adds an uninitialised float32 parameter that requires a gradient.
  [[nodiscard]] at::Tensor add(std::string_view name, std::vector<int64_t> shape, Init init) const;
  // Lists the layer of this scope, whose weight this is; nullptr where layers are not listed.
  [[nodiscard]] const AdapterSite* add_site(const at::Tensor& weight, int64_t stride = 1,
                                            int64_t padding = 0) const;

 private:
  std::vector<NamedParameter>* parameters_;
  AdapterSites* sites_;
  std::string prefix_;
};

enum class Bias { kPresent, kNone };

// Layers are values that share their parameters' storage with the list of their scope. All are
// local and const once constructed.
class Linear {
 public:
  Linear(const ParameterScope& scope, int64_t in, int64_t out, Bias bias = Bias::kPresent);
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x) const;  // (…, in) -> (…, out)

 private:
  at::Tensor weight_;  // (out, in)
  at::Tensor bias_;    // (out) or undefined
  const AdapterSite* site_;
};

class Conv2d {
 public:
  struct Options {
    int64_t kernel = 3;
    int64_t stride = 1;
    int64_t padding = 1;
  };
  Conv2d(const ParameterScope& scope, int64_t in, int64_t out, Options options);
  [[nodiscard]] at::Tensor operator()(
      const at::Tensor& x) const;  // (N, in, H, W) -> (N, out, H', W')

 private:
  at::Tensor weight_;  // (out, in, kernel, kernel)
  at::Tensor bias_;    // (out)
  Options options_;
  const AdapterSite* site_;
};

class GroupNorm {
 public:
  // REQUIRES: groups divides channels.
  GroupNorm(const ParameterScope& scope, int64_t groups, int64_t channels, double eps);
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x) const;  // (N, C, …)

 private:
  at::Tensor weight_;
  at::Tensor bias_;
  int64_t groups_;
  double eps_;
};

class LayerNorm {
 public:
  LayerNorm(const ParameterScope& scope, int64_t channels, double eps = 1e-5);
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x) const;  // (…, C)

 private:
  at::Tensor weight_;
  at::Tensor bias_;
  double eps_;
};

enum class Activation { kNone, kSilu, kMish, kGelu, kRelu };
[[nodiscard]] at::Tensor activate(Activation activation, const at::Tensor& x);

// Two linear layers with an activation between: diffusers' TimestepEmbedding.
class TimestepEmbedding {
 public:
  TimestepEmbedding(const ParameterScope& scope, int64_t in, int64_t out, Activation between,
                    Activation after);
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x) const;  // (N, in) -> (N, out)

 private:
  Linear linear_1_;
  Linear linear_2_;
  Activation between_;
  Activation after_;
};

enum class SinusoidOrder { kSinCos, kCosSin };

// Sinusoidal embedding of positions (Vaswani et al., 2017) as diffusers' Timesteps computes it.
// timesteps: (N) of any dtype; result: (N, channels) float32.
[[nodiscard]] at::Tensor sinusoidal_embedding(const at::Tensor& timesteps, int64_t channels,
                                              SinusoidOrder order, double freq_shift);

// Sets the parameter as its Init says, from random numbers of that position where it says so.
void initialize_parameter(const NamedParameter& parameter, const PositionRandom& random);

// Fills the parameters with torch's default initialisation, drawn from Philox with Stream
// kInitialWeights, the parameter's index as sample and the element's as position in the stream.
void initialize_parameters(const std::vector<NamedParameter>& parameters, uint64_t seed);
}  // namespace trireme
