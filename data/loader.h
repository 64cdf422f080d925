#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/tracer.h"
#include "data/batch_schedule.h"
#include "data/dataset.h"
#include "data/latent_batch.h"
#include "data/sampler.h"
#include "data/timestep_draw.h"

namespace trireme {

// How draws become a batch: everything random about a sample.
struct DrawOptions {
  uint64_t seed = 0;
  TimestepOptions timesteps = {};
  BatchSchedule global_batch = 1;  // For low-discrepancy timesteps.
  double caption_dropout = 0.0;
  double flip = 0.0;
  int64_t crop = 0;  // Side of a square crop, in latent elements; 0: none.
  double noise_offset = 0.0;
  bool use_text = true;      // Whether the model has cross-attention.
  int64_t first_sample = 0;  // Number of the dataset's first sample in its random numbers.
};

// Makes the training batch of `draws`. REQUIRES: all of one shape. Local, thread-safe.
[[nodiscard]] LatentBatch make_training_batch(const LatentDataset& dataset,
                                              const DrawOptions& options, int64_t step,
                                              int64_t first_position,
                                              std::vector<SampleDraw> draws);

// The fixed evaluation batch of `samples` at point `k` of `num_points` spread over the schedule:
// first caption, no flip, no dropout, the crop in the middle (docs/randomness.md, "Validation").
// `noise_samples`, one for each of `samples`, are whose timestep and noise they get instead of
// their own; empty: their own.
[[nodiscard]] LatentBatch make_evaluation_batch(const LatentDataset& dataset,
                                                const DrawOptions& options,
                                                const std::vector<int64_t>& samples, int k,
                                                int num_points,
                                                const std::vector<int64_t>& noise_samples = {});

// This rank's micro-batches in order, made by a thread ahead of the step.
class BatchLoader {
 public:
  // A second set of samples, as many as of the first: prior preservation (docs/prior.md).
  struct PriorSource {
    const LatentDataset* dataset = nullptr;
    const GlobalBatchSampler* sampler = nullptr;
    DrawOptions draw;
    int64_t first_position = 0;  // Global position of its first sample: after the first set's.
    double loss_weight = 1.0;
  };
  struct Options {
    DrawOptions draw;
    int64_t first_step = 1;  // The first step to load.
    int64_t last_step = 1;   // Inclusive; next() after it is an error.
    int64_t rank = 0;        // It has positions [rank, rank + 1) x global batch / num_ranks.
    int64_t num_ranks = 1;
    int64_t micro = 1;      // Divides every step's global batch / num_ranks.
    int num_ahead = 4;      // Batches kept ready.
    TraceTrack trace = {};  // Of the thread.
    // After each micro-batch comes one of the same positions of this source's own batch.
    std::optional<PriorSource> prior = std::nullopt;
  };
  // `dataset` and `sampler`, also those of `prior`, outlive the loader.
  BatchLoader(const LatentDataset& dataset, const GlobalBatchSampler& sampler, Options options);
  ~BatchLoader();  // Stops the thread.
  BatchLoader(const BatchLoader&) = delete;
  BatchLoader& operator=(const BatchLoader&) = delete;

  // Blocks until the next micro-batch is ready. Rethrows what the thread threw.
  [[nodiscard]] LatentBatch next();
  // Seconds that next() has waited since the loader began.
  [[nodiscard]] double wait_seconds() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};
}  // namespace trireme
