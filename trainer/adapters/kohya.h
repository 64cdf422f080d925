#pragma once
#include <filesystem>

#include "trainer/config.h"

namespace trireme {

// Writes the adapter in `folder` (docs/lora.md) as one .safetensors file with the keys of kohya's
// sd-scripts: "lora_unet_…_attn1_to_q.lora_down.weight", ".lora_up.weight" and ".alpha" of each
// layer. A reader scales by alpha / rank, so alpha is lora_scale() x rank. Throws InputError.
void write_kohya_lora(const std::filesystem::path& folder, const AdapterOptions& options,
                      const std::filesystem::path& file);
}  // namespace trireme
