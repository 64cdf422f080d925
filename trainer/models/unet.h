#pragma once
#include <filesystem>
#include <memory>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "trainer/models/diffusion_model.h"
#include "trainer/models/layers.h"
#include "trainer/models/unet_config.h"

namespace trireme {

// A DiffusionModel whose parameters are allocated but not yet set.
struct BlankModel {
  std::unique_ptr<DiffusionModel> model;
  std::vector<NamedParameter> parameters;  // The model's, sharing storage.
};

// Builds diffusers' UNet2DConditionModel. `config_json` is what config_json() returns.
[[nodiscard]] BlankModel make_blank_unet(const UNetConfig& config, std::string config_json);
}  // namespace trireme
