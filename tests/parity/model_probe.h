#pragma once
#include <cstddef>
#include <span>
#include <string>

namespace trireme::probe {

// Throws UsageError unless there are `count` arguments.
void require_count(std::span<const std::string> arguments, size_t count);

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
