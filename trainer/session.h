#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/loader.h"
#include "data/sampler.h"
#include "dist/mpi_environment.h"
#include "trainer/config.h"
#include "trainer/diffusion/noise_schedule.h"
#include "trainer/diffusion/sampling_plan.h"
#include "trainer/models/diffusion_model.h"

namespace trireme {

// What a configuration says of the objective and the model's own scheduler config overrules, with
// what to warn of.
struct ResolvedObjective {
  ObjectiveOptions objective;
  NoiseOptions noise;
  std::vector<std::string> warnings;
};
// `keys_set`: the keys that the user gave. Throws InputError for an unusable scheduler config.
[[nodiscard]] ResolvedObjective resolve_objective(const Config& config,
                                                  const std::vector<std::string>& keys_set);

// Data, model and objective of a configuration: what training, evaluation and sampling share.
// Local; every rank opens its own.
struct Session {
  Config config;
  std::string device;  // "cpu" or "cuda:N", N the rank's place on its node.
  std::unique_ptr<LatentDataset> dataset;
  std::unique_ptr<LatentDataset> validation_files;  // Of data.validation; null without.
  std::unique_ptr<LatentDataset> prior;             // Of data.prior; null without.
  std::optional<Split> split;
  std::vector<SampleRepeats> repeats;  // Of data.repeats.
  std::unique_ptr<DiffusionModel> model;
  std::unique_ptr<NoiseSchedule> schedule;
  SamplingRules sampling;  // Of the model's scheduler config.
  DrawOptions draw;
  DrawOptions prior_draw;  // Its samples are numbered after the training data's.

  // The data that validation reads and how its samples are found.
  [[nodiscard]] const LatentDataset& validation_dataset() const;
  [[nodiscard]] int64_t num_training() const;  // Draws of an epoch.
  [[nodiscard]] int64_t num_validation() const;
};

// The model of a configuration: from model.weights or random, with the adapter that [adapter]
// describes, untrained. `weights`, where not empty, is what a checkpoint holds of it: it replaces
// the model's weights, or the adapter's. Throws UsageError, InputError. Local.
[[nodiscard]] std::unique_ptr<DiffusionModel> open_model(const Config& config,
                                                         const std::filesystem::path& weights = {});

// The order of the prior-preservation set, drawn like that of the training data, whose classes are
// numbered before its own. REQUIRES: session.prior.
[[nodiscard]] std::unique_ptr<GlobalBatchSampler> make_prior_sampler(
    const Session& session, const BatchSchedule& global_batch);

// data.repeats by sample index. Local.
[[nodiscard]] std::vector<SampleRepeats> sample_repeats(const LatentDataset& dataset,
                                                        const DataOptions& data);

// Opens everything and checks that it fits together. `weights` as for open_model(). With
// parallel.shards on the CPU this process computes on one thread from then on, whatever
// OMP_NUM_THREADS says: how kernels round depends on how many threads share them. Throws
// UsageError and InputError; call inside MpiEnvironment::run_on_all_ranks.
[[nodiscard]] Session open_session(Config config, const std::string& device,
                                   const std::filesystem::path& weights = {});

// The device of this rank: its GPU where LibTorch sees any (fewer than ranks are a UsageError),
// else the CPU, whose math threads it sets from OMP_NUM_THREADS or the cores there are. Collective.
[[nodiscard]] std::string choose_device(MpiEnvironment& mpi);
// GPUs of this node that no rank uses.
[[nodiscard]] int num_idle_gpus(const MpiEnvironment& mpi);
// For CommunicatorOptions: index of a "cuda:N" device, or -1; and its current stream.
[[nodiscard]] int cuda_index(const std::string& device);
[[nodiscard]] std::function<void*()> compute_stream_of(const std::string& device);
}  // namespace trireme
