#include "trainer/models/dropout.h"

#include "trainer/torch_api.h"

namespace trireme {

at::Tensor drop(const at::Tensor& x, double probability, const DropoutKey& key, Stream stream,
                uint32_t layer) {
  if (probability >= 1.0) return x * 0.0;
  const auto words =
      philox4x32({layer, static_cast<uint32_t>(stream), static_cast<uint32_t>(key.step),
                  static_cast<uint32_t>(key.first_position)},
                 {static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32)});
  at::Generator generator = at::globalContext().defaultGenerator(x.device()).clone();
  generator.set_current_seed(uint64_t{words[1]} << 32 | words[0]);
  const double keep = 1.0 - probability;
  const at::Tensor mask = at::empty(x.sizes(), x.options()).bernoulli_(keep, generator).div_(keep);
  return x * mask;
}
}  // namespace trireme
