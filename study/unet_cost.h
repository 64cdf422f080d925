#pragma once
#include <cstdint>
#include <vector>

#include "study/network_cost.h"

namespace trireme {
struct UNetConfig;

// The layers of a UNet2DConditionModel on latents and text of `input`'s size.
[[nodiscard]] std::vector<LayerCost> unet_layers(const UNetConfig& config, const InputShape& input);
}  // namespace trireme
