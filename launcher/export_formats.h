#pragma once
#include <filesystem>

#include "launcher/checkpoint_arguments.h"

namespace trireme {

// What `export` writes, a function a format (docs/exports.md). `out` is an existing empty folder,
// or for a file its path. All throw UsageError and InputError.

// A folder like a pipeline's, an adapter merged into its base.
void write_diffusers(const OpenedCheckpoint& checkpoint, CheckpointWeights which,
                     const std::filesystem::path& out);
// pytorch_lora_weights.safetensors in a folder.
void write_lora_peft(const OpenedCheckpoint& checkpoint, CheckpointWeights which,
                     const std::filesystem::path& out);
void write_lora_kohya(const OpenedCheckpoint& checkpoint, CheckpointWeights which,
                      const std::filesystem::path& out);
// The network, an adapter merged into it, with the VAE and text encoder that the base has.
void write_single_file(const OpenedCheckpoint& checkpoint, CheckpointWeights which,
                       const std::filesystem::path& out);
}  // namespace trireme
