#include "trainer/session.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <thread>

#include "trainer/torch_api.h"
#ifdef TRIREME_WITH_CUDA
#include <c10/cuda/CUDAStream.h>
#endif

#include "core/error.h"
#include "core/sha256.h"
#include "data/latent_math.h"
#include "trainer/adapters/lora.h"
#include "trainer/diffusion/scheduler_config.h"
#include "trainer/models/pretrained_folder.h"
#include "trainer/pipeline_folder.h"

namespace trireme {
namespace {
std::vector<std::filesystem::path> paths_of(const std::vector<std::string>& names) {
  return {names.begin(), names.end()};
}

void check_data_fits(const LatentDataset& dataset, const DiffusionModel& model, int64_t crop,
                     const std::string& key) {
  for (const auto& shape_class : dataset.classes()) {
    LatentShape shape = shape_class.shape;
    if (crop > shape.height || crop > shape.width) {
      throw UsageError("data.crop = " + std::to_string(crop) + " does not fit into latents of " +
                       std::to_string(shape.height) + " x " + std::to_string(shape.width) + " (" +
                       key + ": " + dataset.describe(shape_class.ranges.front().first) +
                       "). Lower it, or leave such pictures out.");
    }
    shape = cropped_shape(shape, crop);
    const std::string place = key + ": " + dataset.describe(shape_class.ranges.front().first);
    if (shape.channels != model.in_channels()) {
      throw InputError(place + ": its latents have " + std::to_string(shape.channels) +
                       " channels, but the model takes " + std::to_string(model.in_channels()) +
                       ". Pack the pictures with the VAE that belongs to this model.");
    }
    const int64_t multiple = model.sample_size_multiple();
    if (shape.height % multiple != 0 || shape.width % multiple != 0) {
      throw InputError(place + ": its latents are " + std::to_string(shape.height) + " x " +
                       std::to_string(shape.width) + ", but the model needs multiples of " +
                       std::to_string(multiple) +
                       (crop > 0 ? ". Choose another data.crop."
                                 : ". Pack the pictures at another resolution."));
    }
  }
  if (model.cross_attention_dim() > 0) {
    dataset.require_text();
    const auto text = dataset.text();
    if (text->width != model.cross_attention_dim()) {
      throw InputError(key + ": the text embeddings are " + std::to_string(text->width) +
                       " wide, but the model's cross_attention_dim is " +
                       std::to_string(model.cross_attention_dim()) + " (" + dataset.describe(0) +
                       "). Pack the captions with the text encoder that belongs to this model.");
    }
  }
  if (model.takes_class_labels()) dataset.require_labels(model.num_class_labels());
}

// Weights of convolutions decide in which memory order their outputs are computed.
void use_channels_last(DiffusionModel& model) {
  const torch::NoGradGuard no_grad;
  const auto convert = [](const at::Tensor& tensor) {
    if (tensor.dim() == 4) tensor.set_data(tensor.contiguous(at::MemoryFormat::ChannelsLast));
  };
  for (const auto& [name, tensor] : model.named_parameters()) convert(tensor);
  if (AdapterSites* sites = model.adapter_sites()) {  // A base that rests under an adapter.
    for (const auto& site : *sites) convert(site.weight);
  }
}

TimestepOptions timestep_options(const Config& config, int64_t num_timesteps) {
  using Options = TimestepOptions;
  const ObjectiveOptions& objective = config.objective;
  const bool is_logit = objective.timestep_distribution == TimestepDistribution::kLogitNormal;
  const bool is_spread = objective.timestep_sampling == TimestepSampling::kLowDiscrepancy;
  return {
      .num_timesteps = num_timesteps,
      .distribution =
          is_logit ? Options::Distribution::kLogitNormal : Options::Distribution::kUniform,
      .logit_mean = objective.logit_mean,
      .logit_std = objective.logit_std,
      .sampling = is_spread ? Options::Sampling::kLowDiscrepancy : Options::Sampling::kIndependent,
      .range = objective.timestep_range};
}

std::unique_ptr<DiffusionModel> open_base(const Config& config) {
  if (!config.model.weights.empty()) return load_model(config.model.weights, config.model.dropout);
  return make_model(config.model.config, config.model.dropout, config.run.seed);
}

AdapterBase identify_base(const Config& config) {
  const auto& model = config.model;
  if (!model.weights.empty()) {
    return {.path = model.weights, .sha256 = sha256_of_weights(model_weights_files(model.weights))};
  }
  // Random weights follow from these two.
  return {.path = model.config,
          .sha256 = sha256_of_text(sha256_of_file(model.config) + " seed " +
                                   std::to_string(config.run.seed))};
}

// By the scheduler config in or beside the first of `folders` that has one, else as trireme writes
// its own: then what a run samples is what its checkpoints do.
SamplingRules find_sampling_rules(const Config& config,
                                  const std::vector<std::filesystem::path>& folders) {
  const Prediction prediction = config.objective.prediction;
  SamplingRules rules = SamplingRules::of_trireme(config.noise, prediction);
  for (const auto& weights : folders) {
    const auto folder = pipeline_part(weights, "scheduler");
    const auto found = folder ? read_scheduler_config(*folder) : std::nullopt;
    if (!found) continue;
    // Rescaled here and not there: only trailing timesteps begin where there is no signal.
    const bool is_rescaled =
        config.noise.rescale_zero_terminal_snr && !found->noise.rescale_zero_terminal_snr;
    const auto spacing = rules.timestep_spacing;
    rules = found->sampling;
    if (is_rescaled) rules.timestep_spacing = spacing;
    break;
  }
  return rules;
}

bool draws_pictures(const Config& config) {
  const bool has_vae =
      !config.sample.vae.empty() || pipeline_part(config.model.weights, "vae").has_value();
  return (config.sample.count > 0 && has_vae) || !config.scores.metrics.empty();
}
}  // namespace

std::unique_ptr<DiffusionModel> open_model(const Config& config,
                                           const std::filesystem::path& weights) {
  if (config.adapter.type == "none") {
    return weights.empty() ? open_base(config) : load_model(weights, config.model.dropout);
  }
  auto model = add_lora(open_base(config), identify_base(config), config.adapter, config.run.seed);
  if (!weights.empty()) model->load(weights);
  return model;
}

std::unique_ptr<GlobalBatchSampler> make_prior_sampler(const Session& session,
                                                       const BatchSchedule& global_batch) {
  using Order = GlobalBatchSampler::Options::Order;
  const auto& classes = session.prior->classes();
  return std::make_unique<GlobalBatchSampler>(
      classes, Split(classes),
      GlobalBatchSampler::Options{
          .seed = session.config.run.seed,
          .global_batch = global_batch,
          .order = session.config.data.shuffle ? Order::kShuffled : Order::kByIndex,
          .first_class = static_cast<uint32_t>(session.dataset->classes().size())});
}

const LatentDataset& Session::validation_dataset() const {
  return validation_files ? *validation_files : *dataset;
}

int64_t Session::num_training() const {
  return TrainingSamples(dataset->classes(), *split, repeats).num_draws();
}

int64_t Session::num_validation() const {
  if (validation_files) return validation_files->num_samples();
  int64_t count = 0;
  for (size_t c = 0; c < dataset->classes().size(); ++c) count += split->num_validation(c);
  return count;
}

std::vector<SampleRepeats> sample_repeats(const LatentDataset& dataset, const DataOptions& data) {
  std::vector<SampleRepeats> repeats;
  if (data.repeats.empty()) return repeats;
  const auto files = dataset.summaries();
  check(files.size() == data.repeats.size(), "repeats for each file");
  int64_t first = 0;
  for (size_t f = 0; f < files.size(); ++f) {
    int64_t count = 0;
    for (const auto& bucket : files[f].buckets) count += bucket.num_samples;
    repeats.push_back({.first = first, .count = count, .times = data.repeats[f]});
    first += count;
  }
  return repeats;
}

Session open_session(Config config, const std::string& device,
                     const std::filesystem::path& weights) {
  if (device == "cpu" && config.parallel.shards > 0) torch::set_num_threads(1);
  Session session;
  session.device = device;
  session.dataset = LatentDataset::open(paths_of(config.data.train));
  if (!config.data.validation.empty()) {
    session.validation_files = LatentDataset::open(paths_of(config.data.validation));
  }
  if (!config.data.prior.empty()) {
    session.prior = LatentDataset::open(paths_of(config.data.prior));
  }
  session.split.emplace(session.dataset->classes(), config.data.validation_fraction,
                        config.run.seed);
  session.repeats = sample_repeats(*session.dataset, config.data);
  session.model = open_model(config, weights);
  check_data_fits(*session.dataset, *session.model, config.data.crop, "data.train");
  if (session.validation_files) {
    check_data_fits(*session.validation_files, *session.model, config.data.crop, "data.validation");
  }
  if (session.prior)
    check_data_fits(*session.prior, *session.model, config.data.crop, "data.prior");
  if (session.num_training() == 0) {
    throw UsageError("no training samples are left: data.validation_fraction = " +
                     std::to_string(config.data.validation_fraction) + " of " +
                     std::to_string(session.dataset->num_samples()) + " samples. Lower it.");
  }
  session.model->to_device(device);
  if (config.parallel.memory_format == MemoryFormat::kChannelsLast)
    use_channels_last(*session.model);
  if (config.parallel.activation_checkpointing) session.model->use_activation_checkpointing();
  session.schedule = std::make_unique<NoiseSchedule>(config.noise);
  validate_objective(config.objective, *session.schedule);
  session.sampling = find_sampling_rules(config, {config.model.weights, weights});
  if (draws_pictures(config)) {  // Else a mistake here harms nobody.
    (void)plan_sampling(config.sample, session.sampling, *session.schedule,
                        config.objective.prediction);
  }
  session.draw = {.seed = config.run.seed,
                  .timesteps = timestep_options(config, session.schedule->num_timesteps()),
                  .global_batch = 1,
                  .caption_dropout = config.data.caption_dropout,
                  .flip = config.data.flip,
                  .crop = config.data.crop,
                  .noise_offset = config.objective.noise_offset,
                  .use_text = session.model->cross_attention_dim() > 0};
  session.prior_draw = session.draw;
  session.prior_draw.first_sample = session.dataset->num_samples();
  session.config = std::move(config);
  return session;
}

std::string choose_device(MpiEnvironment& mpi) {
  const int num_gpus =
      torch::cuda::is_available() ? static_cast<int>(torch::cuda::device_count()) : 0;
  mpi.run_on_all_ranks([&] {
    if (num_gpus == 0 || mpi.local_size() <= num_gpus) return;
    throw UsageError("there are " + std::to_string(mpi.local_size()) + " ranks on " +
                     mpi.host_name() + ", but LibTorch sees " + std::to_string(num_gpus) +
                     " GPU(s). Start one rank a GPU (`trireme launch` does), or set "
                     "CUDA_VISIBLE_DEVICES= to compute on the CPU.");
  });
  if (num_gpus > 0) return "cuda:" + std::to_string(mpi.local_rank());
  if (std::getenv("OMP_NUM_THREADS") == nullptr) {
    const int cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    torch::set_num_threads(std::max(1, cores / mpi.local_size()));
  }
  return "cpu";
}

int num_idle_gpus(const MpiEnvironment& mpi) {
  if (!torch::cuda::is_available()) return 0;
  return std::max(0, static_cast<int>(torch::cuda::device_count()) - mpi.local_size());
}

int cuda_index(const std::string& device) {
  return device.starts_with("cuda:") ? std::stoi(device.substr(5)) : -1;
}

std::function<void*()> compute_stream_of(const std::string& device) {
#ifdef TRIREME_WITH_CUDA
  const int index = cuda_index(device);
  if (index >= 0) {
    return [index]() -> void* {
      return c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(index)).stream();
    };
  }
#endif
  return {};
}
}  // namespace trireme
