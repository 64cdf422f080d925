#include "trainer/adapters/lora_layer.h"

#include <cmath>

#include "trainer/models/dropout.h"
#include "trainer/torch_api.h"

namespace trireme {

LoraLayer::LoraLayer(AdapterSite& site, Shape shape, const LoraPass& pass,
                     std::vector<NamedParameter>& parameters)
    : site_(site), shape_(shape), pass_(pass) {
  std::vector<int64_t> shape_a = site.weight.sizes().vec();
  std::vector<int64_t> shape_b(shape_a.size(), 1);
  shape_b[0] = shape_a[0];
  shape_b[1] = shape.rank;
  shape_a[0] = shape.rank;
  int64_t fan_in = 1;
  for (size_t i = 1; i < shape_a.size(); ++i) fan_in *= shape_a[i];

  ParameterScope scope(parameters);
  scope = scope / site.name;
  a_ = (scope / "lora_A")
           .add("weight", shape_a,
                {.kind = Init::Kind::kUniform,
                 .bound = 1.0 / std::sqrt(static_cast<double>(fan_in))});
  b_ = (scope / "lora_B").add("weight", shape_b, {.kind = Init::Kind::kZeros});
  site.adapter = this;
}

at::Tensor LoraLayer::operator()(const at::Tensor& x) const {
  at::Tensor input = x;
  if (pass_.dropout_key && shape_.dropout > 0.0) {
    input = drop(x, shape_.dropout, *pass_.dropout_key, Stream::kAdapterDropout, shape_.number);
  }
  const double scale = pass_.weight * shape_.scale;
  if (x.dim() == 4) {  // (N, in, H, W)
    return at::conv2d(at::conv2d(input, a_, {}, site_.stride, site_.padding), b_) * scale;
  }
  // A 1x1 convolution whose pixels come in rows is a linear layer.
  const auto matrix = [](const at::Tensor& weight) {
    return weight.dim() == 2 ? weight : weight.flatten(1);
  };
  return at::linear(at::linear(input, matrix(a_)), matrix(b_)) * scale;  // (…, out)
}

at::Tensor LoraLayer::delta() const {
  const at::Tensor product =
      at::matmul(b_.flatten(1).to(at::kDouble), a_.flatten(1).to(at::kDouble));
  return (product * (pass_.weight * shape_.scale)).view(site_.weight.sizes());
}
}  // namespace trireme
