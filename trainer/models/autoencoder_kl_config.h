#pragma once
#include <cstdint>
#include <filesystem>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "trainer/models/layers.h"

namespace trireme {

// An AutoencoderKL's config.json, validated. Names are diffusers'.
struct AutoencoderKLConfig {
  int64_t in_channels = 3;
  int64_t out_channels = 3;
  int64_t latent_channels = 4;
  std::vector<int64_t> block_out_channels = {64};  // Outermost first.
  int64_t layers_per_block = 1;
  int64_t norm_num_groups = 32;
  Activation act_fn = Activation::kSilu;
  double scaling_factor = 0.18215;
  double shift_factor = 0.0;
  enum class Part { kAbsent, kPresent };
  Part quant_conv = Part::kPresent;
  Part post_quant_conv = Part::kPresent;
  Part mid_block_attention = Part::kPresent;
};

// Throws InputError naming `file` and the key that cannot be represented exactly.
[[nodiscard]] AutoencoderKLConfig parse_autoencoder_kl_config(const nlohmann::json& json,
                                                              const std::filesystem::path& file);
}  // namespace trireme
