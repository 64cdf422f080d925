#pragma once
#include <span>
#include <string>

namespace trireme::probe {

// Each runs one subcommand of model_probe on the arguments after its name and returns the exit
// code. Errors are thrown. A usage line stands with each in model_probe.cc.
int run_unet(std::span<const std::string> arguments);
int run_unet_names(std::span<const std::string> arguments);
int run_unet_bench(std::span<const std::string> arguments);
int run_unet_random(std::span<const std::string> arguments);
int run_vae(std::span<const std::string> arguments);
int run_clip(std::span<const std::string> arguments);
int run_clip_pair(std::span<const std::string> arguments);
int run_inception(std::span<const std::string> arguments);
int run_tokenize(std::span<const std::string> arguments);
}  // namespace trireme::probe
