#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "trainer/config.h"
#include "trainer/diffusion/sampling_plan.h"

namespace trireme {

// What a diffusers scheduler_config.json says of how its model was trained.
struct SchedulerConfig {
  NoiseOptions noise;
  Prediction prediction = Prediction::kEpsilon;
  SamplingRules sampling;
};

// Reads scheduler_config.json of `folder` (the scheduler/ of a diffusers folder); nullopt where
// there is no such file. Keys that are absent take diffusers' defaults. Throws InputError naming
// file and key for what cannot be represented exactly: another beta schedule, prediction, timestep
// spacing or shift. clip_sample is not read: latents have no bounds, and diffusers' own pipelines
// switch it off.
[[nodiscard]] std::optional<SchedulerConfig> read_scheduler_config(
    const std::filesystem::path& folder);

// As a configuration has them.
[[nodiscard]] std::string name_of(Prediction prediction);
[[nodiscard]] std::string name_of(BetaSchedule schedule);

// A scheduler_config.json that diffusers loads and samples with as trireme does: DDIMScheduler
// (DDPMScheduler for sigmoid and laplace betas, which DDIM has not; FlowMatchEulerDiscreteScheduler
// for flow). Equal options give equal text.
[[nodiscard]] std::string scheduler_config_json(const NoiseOptions& noise, Prediction prediction,
                                                const SamplingRules& sampling);
}  // namespace trireme
