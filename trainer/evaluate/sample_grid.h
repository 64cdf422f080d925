#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "data/image.h"
#include "dist/mpi_environment.h"
#include "trainer/session.h"

namespace trireme {

// What is to be sampled: a caption and its text embedding each.
struct SamplePrompts {
  std::vector<std::string> captions;
  at::Tensor embeds;        // (count, L, D); undefined for a model without text
  at::Tensor empty_embeds;  // (1, L, D)
  LatentShape shape;        // Of each sample.
};

// [sample].count prompts: sample.prompts (encoded by the text encoder beside the model's weights,
// in turn) or, where that is empty, captions of the validation data (else of the training data),
// spread evenly over it. Local. Throws InputError, UsageError.
[[nodiscard]] SamplePrompts choose_prompts(const Session& session);

// `count` samples of the first class (so of one shape), spread evenly over the validation data, or
// the training data where there is none.
[[nodiscard]] std::vector<int64_t> spread_samples(const Session& session, int64_t count);
// Their captions (ids where the model takes no text) and embeddings. `samples` are indices into
// session.validation_dataset(); not empty.
[[nodiscard]] SamplePrompts prompts_of_samples(const Session& session,
                                               const std::vector<int64_t>& samples);

// Latents (count, C, H, W), unscaled as a VAE decodes them, by DDIM with guidance as [sample] says.
// The noise is a function of (sample.seed, index); groups of fixed composition are dealt out to the
// ranks, so the result does not depend on their number. Collective.
[[nodiscard]] at::Tensor sample_latents(MpiEnvironment& mpi, Session& session,
                                        const SamplePrompts& prompts);

// Decodes latents with the VAE of `folder`: one picture each. Local.
[[nodiscard]] std::vector<Image> decode_images(const std::filesystem::path& vae_folder,
                                               const at::Tensor& latents);

// Pictures side by side in rows of `columns`, separated by white lines.
[[nodiscard]] Image tile(const std::vector<Image>& images, int64_t columns);

// The VAE that belongs to the session's model: sample.vae, or vae/ inside or beside the weights.
[[nodiscard]] std::optional<std::filesystem::path> find_vae(const Config& config);

// Samples and writes one PNG (rank 0). Without a VAE nothing is drawn, which is said once.
// Collective.
void write_sample_grid(MpiEnvironment& mpi, Session& session, const std::filesystem::path& file);
}  // namespace trireme
