#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "data/image.h"
#include "dist/mpi_environment.h"
#include "trainer/evaluate/sample_prompts.h"
#include "trainer/models/autoencoder_kl.h"
#include "trainer/session.h"

namespace trireme {

// Pictures [first, first + count) of `prompts`, as scaled latents (count, C, H, W): by the sampler
// of [sample] under guidance. All noise is a function of (sample.seed, picture, step)
// (docs/randomness.md), so a picture does not depend on who draws it, nor on which others are
// drawn; its bits depend on `count`. Local; `progress` is called after each step.
[[nodiscard]] at::Tensor denoise(Session& session, const SamplePrompts& prompts, int64_t first,
                                 int64_t count, const std::function<void()>& progress);

// The latents of all pictures, dealt out to the ranks sample.batch at a time: (count, C, H, W),
// equal on every rank at any number of ranks. Collective.
[[nodiscard]] at::Tensor sample_latents(MpiEnvironment& mpi, Session& session,
                                        const SamplePrompts& prompts);

// A VAE's pictures of scaled latents (count, C, H, W), 8 bits: (count, 3, H', W') uint8. Local.
[[nodiscard]] at::Tensor decode(AutoencoderKL& vae, const at::Tensor& latents);

// Decodes latents with the VAE of `folder`, all ranks together: one picture each on rank 0, none on
// the others. Collective.
[[nodiscard]] std::vector<Image> decode_images(MpiEnvironment& mpi,
                                               const std::filesystem::path& vae_folder,
                                               const std::string& device,
                                               const at::Tensor& latents);

// The VAE that belongs to the session's model: sample.vae, or vae/ inside or beside the weights.
[[nodiscard]] std::optional<std::filesystem::path> find_vae(const Config& config);
}  // namespace trireme
