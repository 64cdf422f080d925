#pragma once
#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

namespace trireme {

// A part of a network as a function of tensors; what else it reads is the same at every call.
using NetworkPart = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs)>;

// The part's outputs, without keeping what its backward needs: backward runs the part once more
// (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016), under the autocast of now.
// Gradients are the same but for rounding: what an input feeds is added up inside the part first.
// Inputs may be undefined; outputs are distinct tensors. What the part refers to outlives backward.
[[nodiscard]] std::vector<at::Tensor> recompute_in_backward(NetworkPart part,
                                                            const std::vector<at::Tensor>& inputs);
}  // namespace trireme
