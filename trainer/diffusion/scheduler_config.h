#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "trainer/config.h"

namespace trireme {

// What a diffusers scheduler_config.json says of how its model was trained.
struct SchedulerConfig {
  NoiseOptions noise;
  Prediction prediction = Prediction::kEpsilon;
};

// Reads scheduler_config.json of `folder` (the scheduler/ of a diffusers folder); nullopt where
// there is no such file. Keys that are absent take diffusers' defaults. Throws InputError naming
// file and key for what cannot be represented exactly: trained_betas, another beta schedule or
// prediction. How a scheduler samples (spacing, order, flow's shift) is not read.
[[nodiscard]] std::optional<SchedulerConfig> read_scheduler_config(
    const std::filesystem::path& folder);

// A scheduler_config.json that diffusers loads and samples with as trireme does: DDIMScheduler
// (DDPMScheduler for sigmoid betas, which DDIM has not; FlowMatchEulerDiscreteScheduler for flow).
// Equal options give equal text.
[[nodiscard]] std::string scheduler_config_json(const NoiseOptions& noise, Prediction prediction);
}  // namespace trireme
