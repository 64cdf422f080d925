#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "trainer/models/safetensors.h"

namespace trireme {

// What goes into a single-file checkpoint.
struct SingleFileParts {
  NamedTensors unet;                                  // Under diffusers' names.
  std::string unet_config_json;                       // config.json
  std::optional<std::filesystem::path> vae;           // Folder of an AutoencoderKL.
  std::optional<std::filesystem::path> text_encoder;  // Folder of a CLIPTextModel.
};

// One .safetensors file with the names of the CompVis code, which older tools read
// (docs/exports.md): "model.diffusion_model.", "first_stage_model.", and the text encoder as
// "cond_stage_model.transformer." where it computes CLIP's quick GELU (Stable Diffusion 1), as
// OpenCLIP's "cond_stage_model.model." where it computes GELU (2). Each part keeps its dtype.
// Throws UsageError for a UNet that this layout cannot express, InputError for unusable parts.
void write_single_file(const std::filesystem::path& file, const SingleFileParts& parts);
}  // namespace trireme
