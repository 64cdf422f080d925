#pragma once
#include <vector>

#include "study/network_cost.h"
#include "trainer/models/config_reader.h"

namespace trireme {

// The layers of diffusers' transformers; keys that cost nothing are not looked at.
[[nodiscard]] std::vector<LayerCost> dit_layers(ConfigReader& reader, const InputShape& input);
[[nodiscard]] std::vector<LayerCost> sd3_layers(ConfigReader& reader, const InputShape& input);
[[nodiscard]] std::vector<LayerCost> flux_layers(ConfigReader& reader, const InputShape& input);
}  // namespace trireme
