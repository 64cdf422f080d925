#pragma once
#include <cstdint>
#include <filesystem>
#include <vector>

#include "data/image.h"
#include "dist/mpi_environment.h"
#include "trainer/evaluate/sample_prompts.h"
#include "trainer/session.h"

namespace trireme {

// Pictures of equal size side by side in rows of `columns`, separated by white lines.
[[nodiscard]] Image tile(const std::vector<Image>& images, int64_t columns);
// The columns of a grid that is about square.
[[nodiscard]] int64_t square_columns(size_t num_images);

// What a PNG of picture `index` says of itself: prompt, negative_prompt, seed, index, sampler and
// the other settings by the names of their keys, `origin` (which weights drew it), and the settings
// once more as the text `parameters`, which most viewers of generated pictures read.
[[nodiscard]] std::vector<ImageText> describe_sample(const Session& session,
                                                     const SamplePrompts& prompts, int64_t index,
                                                     const std::vector<ImageText>& origin = {});
// The same of a grid: its prompts, one a line.
[[nodiscard]] std::vector<ImageText> describe_grid(const Session& session,
                                                   const SamplePrompts& prompts,
                                                   const std::vector<ImageText>& origin = {});

// Decodes the latents of `prompts` with the VAE of `vae_folder` and writes one PNG (rank 0).
// Collective.
void write_sample_grid(MpiEnvironment& mpi, const Session& session,
                       const std::filesystem::path& vae_folder, const SamplePrompts& prompts,
                       const at::Tensor& latents, const std::filesystem::path& file);
}  // namespace trireme
