#pragma once
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "dist/mpi_environment.h"
#include "trainer/evaluate/eval_metrics.h"
#include "trainer/session.h"

namespace trireme {

// The training latents nearest to a latent. Distances are root mean squares over the elements, as
// the model sees them, posterior means.
struct NearestTraining {
  int64_t sample = -1;  // -1: no training latent has the shape.
  double distance = std::numeric_limits<double>::infinity();
  double second_distance = std::numeric_limits<double>::infinity();  // Of the one after it.

  // Nearer than a third of the way to the next (Yoon et al., "Diffusion Probabilistic Models
  // Generalize when They Fail to Memorize", 2023): a copy of that sample.
  [[nodiscard]] bool is_memorised() const noexcept {
    return sample >= 0 && 3 * distance < second_distance;
  }
};

struct NearestSearch {
  std::vector<NearestTraining> nearest;  // One a latent.
  int64_t num_compared = 0;              // Training latents looked at: all, or as many, evenly.
};

// The posterior mean of a sample of shape `whole` as the model sees it, the middle of it where
// `crop` is not 0. (C, H, W), on the CPU. Local.
[[nodiscard]] at::Tensor mean_latent(const LatentDataset& dataset, int64_t sample,
                                     const LatentShape& whole, int64_t crop);

// For each of `latents` (n, C, H, W), equal on all ranks, the nearest of at most `max_compared`
// training latents of that shape (data.crop: their middles), dealt out to the ranks; the result
// does not depend on their number. Collective.
[[nodiscard]] NearestSearch find_nearest_training(MpiEnvironment& mpi, const Session& session,
                                                  const at::Tensor& latents, int64_t max_compared);

// One JSON object a line and sample: prompt, distance, second_distance, and of the nearest training
// sample its index, id and caption. Rank 0.
void write_nearest(const LatentDataset& dataset, const std::vector<std::string>& prompts,
                   const NearestSearch& search, const std::filesystem::path& file);

// As numbers of an evaluation: the mean and the least distance, and the share of copies. Empty
// where nothing could be compared.
[[nodiscard]] EvalMetrics memorisation_metrics(const NearestSearch& search);
}  // namespace trireme
