#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "data/latent_batch.h"

namespace trireme {

enum class LatentKind { kMoments, kSample };

// Everything about a packed file that is known before its latents.
struct LatentFileHeader {
  double scaling_factor = 1.0;
  double shift_factor = 0.0;
  std::string vae;                                 // Free text.
  std::map<std::string, std::string> provenance;   // Further root attributes, strings.
  LatentKind kind = LatentKind::kMoments;
  LatentShape shape;  // C is the latent's channels; the dataset has 2C with kMoments.
  std::vector<std::string> ids;                    // (N)
  std::vector<std::vector<int32_t>> caption_rows;  // (N) lists, at least one each; padded with -1.
  std::vector<std::string> captions;               // (U); row 0 is the empty prompt.
  int64_t text_length = 0;   // L; 0: no text.
  int64_t text_width = 0;    // D
  int64_t pooled_width = 0;  // P; 0: none.
};

// Byte offsets at which the parts of a file lie, so that ranks can write them with pwrite.
struct LatentFileLayout {
  uint64_t latents_offset_bytes = 0;        // (N, C or 2C, H, W) float16
  uint64_t xxh3_offset_bytes = 0;           // (N) uint64
  uint64_t prompt_embeds_offset_bytes = 0;  // (U, L, D) float16
  uint64_t pooled_offset_bytes = 0;         // (U, P) float16
};

// Creates `file` with all groups, attributes and contiguous, allocated datasets; everything but
// latents, xxh3, prompt_embeds and pooled_prompt_embeds is written. Called by one rank.
LatentFileLayout create_latent_file(const std::filesystem::path& file, const LatentFileHeader& header);
}  // namespace trireme
