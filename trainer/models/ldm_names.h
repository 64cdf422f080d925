#pragma once
#include <cstdint>
#include <string>

// Names of parameters in single-file checkpoints, as the CompVis latent-diffusion code and the
// programs after it have them, from diffusers' and transformers' names (docs/exports.md).
namespace trireme {

struct LdmUNetShape {
  int64_t layers_per_block = 2;
};
// "model.diffusion_model.input_blocks.1.0.in_layers.0.weight" for
// "down_blocks.0.resnets.0.norm1.weight". `has_attention`: whether the up block of the name has
// transformers, which decides where its upsampler stands. Throws InternalError for an unknown name.
[[nodiscard]] std::string ldm_unet_name(const std::string& name, LdmUNetShape shape,
                                        bool has_attention);

// "first_stage_model.…" for an AutoencoderKL's names, old and new; up blocks are counted from the
// other end.
[[nodiscard]] std::string ldm_vae_name(const std::string& name, int64_t num_up_blocks);

// "cond_stage_model.model.…" as OpenCLIP has it, for a CLIPTextModel's name with or without
// "text_model."; q_proj, k_proj and v_proj all give in_proj_weight or in_proj_bias. "" for
// position_ids, which is not a weight.
[[nodiscard]] std::string open_clip_name(const std::string& name);
}  // namespace trireme
