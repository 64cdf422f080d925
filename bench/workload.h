#pragma once
#include <filesystem>

#include "trainer/config.h"

namespace trireme::bench {

// What is measured: the files of a workload, made by write_workload(), by name.
//
// `unet/config.json` is the UNet of 14.6 M parameters (channels 64, 128, 192, 192, one layer a
// block) on 16 x 16 latents, 8 a rank; `large/config.json` has over 100 MB of gradients and little
// to compute, one sample of 8 x 8 a rank. `step.h5`, `large.h5` hold their data, `loader.h5` single
// latents of (4, 32, 32).
enum class Model { kUNet, kLarge };

// One rank writes, before the others read. Throws UsageError.
void write_workload(const std::filesystem::path& folder);

// A training run on it, without evaluation, samples and checkpoints.
[[nodiscard]] Config training_config(const std::filesystem::path& folder, Model model,
                                     int num_ranks);
}  // namespace trireme::bench
