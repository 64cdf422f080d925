#pragma once
#include <cstdint>

#include <ATen/core/Tensor.h>

#include "core/philox.h"
#include "trainer/models/diffusion_model.h"

namespace trireme {

// Zeroes elements with probability `probability` and scales the rest. The mask comes from a
// generator of its own, seeded by Philox from the key, the stream and the layer's number, so that
// it depends on nothing else (docs/weights.md, "Dropout").
[[nodiscard]] at::Tensor drop(const at::Tensor& x, double probability, const DropoutKey& key,
                              Stream stream, uint32_t layer);
}  // namespace trireme
