#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace trireme {

// The configuration of a run: one struct a TOML table, one field a key, same names
// (docs/config.md). Plain values; read by launcher/config_file.h, which also checks ranges.

struct RunOptions {
  std::string name = "run";
  std::string dir = {};  // Empty: "runs/NAME".
  uint64_t seed = 42;
  int64_t steps = 0;       // Optimizer steps; 0: from epochs.
  double epochs = 0.0;     // ceil(epochs * N / global batch) steps; 0: from steps.
  double max_hours = 0.0;  // Wall time of one start, then as at a stop signal; 0: no limit.
};

struct ModelOptions {
  std::string weights = {};  // Diffusers folder or .safetensors file; empty: `config`.
  std::string config = {};   // config.json for random initialisation.
  double dropout = 0.0;
};

struct DataOptions {
  std::vector<std::string> train = {};
  std::vector<std::string> validation = {};
  double validation_fraction = 0.0;
  std::vector<std::string> prior = {};  // Files of the prior-preservation set; empty: off.
  double prior_weight = 1.0;            // Of its loss.
  bool shuffle = true;
  double caption_dropout = 0.0;
  double flip = 0.0;
  int64_t crop = 0;  // Side of a random square crop, in latent elements; 0: off.
  std::vector<int64_t> repeats =
      {};  // Draws an epoch of each sample, by file of `train`; empty: 1.
};

struct BatchOptions {
  int64_t global = 0;    // Samples per optimizer step over all ranks; 0: from per_rank.
  int64_t per_rank = 0;  // 0: from global.
  int64_t micro = 0;     // Samples per forward pass; 0: a rank's share, or global / shards.
  std::vector<int64_t> grow_at = {};  // Batch-size warm-up: once so many samples were consumed …
  std::vector<int64_t> grow_to = {};  // … this is the global batch.
};

enum class Prediction { kEpsilon, kVPrediction, kSample, kFlow };

enum class LossName { kMse, kHuber };
enum class TimestepDistribution { kUniform, kLogitNormal };
enum class TimestepSampling { kIndependent, kLowDiscrepancy };

struct ObjectiveOptions {
  Prediction prediction = Prediction::kEpsilon;
  double snr_gamma = 0.0;  // Min-SNR weighting; 0: off.
  double noise_offset = 0.0;
  LossName loss = LossName::kMse;
  double huber_delta = 1.0;
  TimestepDistribution timestep_distribution = TimestepDistribution::kUniform;
  TimestepSampling timestep_sampling = TimestepSampling::kIndependent;
  std::array<double, 2> timestep_range = {0.0, 1.0};  // Part of the schedule.
  double logit_mean = 0.0;                            // logit_normal
  double logit_std = 1.0;
};

enum class BetaSchedule { kLinear, kScaledLinear, kSquaredCosCapV2, kSigmoid, kExp, kLaplace };

struct NoiseOptions {
  BetaSchedule schedule = BetaSchedule::kScaledLinear;
  double beta_start = 0.00085;
  double beta_end = 0.012;
  int64_t timesteps = 1000;
  bool rescale_zero_terminal_snr = false;
  std::vector<double> trained_betas =
      {};  // Instead of schedule, beta_start and beta_end; empty: none.
};

enum class OptimizerName { kAdamW, kAdam, kSgd, kLamb, kLars, kLion, kAdafactor };
enum class LrScaling { kLinear, kSqrt, kPower, kSqrtAdam };

struct OptimOptions {
  OptimizerName name = OptimizerName::kAdamW;
  double lr = 1e-4;
  std::array<double, 2> betas = {0.9, 0.999};
  double momentum = 0.9;
  bool nesterov = false;
  double eps = 1e-8;
  double weight_decay = 0.01;
  bool decay_norms_and_biases = true;
  double max_grad_norm = 1.0;                         // 0: off.
  double max_grad_value = 0.0;                        // Of each element, before the norm; 0: off.
  std::map<std::string, double> lr_multipliers = {};  // Regular expression of names -> factor.
  int64_t lr_base_batch = 0;  // Global batch that lr was chosen for; 0: lr is used as it is.
  LrScaling lr_scaling = LrScaling::kLinear;
  double lr_scaling_power = 0.6;
};

struct AdapterOptions {
  std::string type = "none";  // none | lora
  int64_t rank = 16;
  double alpha = 16.0;
  std::vector<std::string> targets = {"to_q", "to_k", "to_v", "to_out.0"};
  double dropout = 0.0;
  bool use_rslora = false;  // Scale alpha / sqrt(rank) instead of alpha / rank.
};

struct FreezeOptions {
  std::vector<std::string> patterns = {};
  std::vector<std::string> groups = {};
  int64_t first_blocks = 0;  // Down blocks, middle and up blocks, counted from the input.
};

enum class MetricMode { kAuto, kMin, kMax };

struct EarlyStoppingOptions {
  std::string metric = "val_loss";      // Any number of an evaluation.
  MetricMode mode = MetricMode::kAuto;  // What is better.
  int64_t patience = 0;                 // Evaluations without improvement; 0: off.
  double min_delta = 0.0;
};

enum class LrScheduleName {
  kConstant,
  kLinear,
  kCosine,
  kPolynomial,
  kWsd,
  kCosineWithRestarts,
  kInverseSqrt
};

struct LrScheduleOptions {
  LrScheduleName name = LrScheduleName::kCosine;
  int64_t warmup_steps = 100;    // One of the three at most.
  int64_t warmup_samples = 0;    // 0: from warmup_steps.
  double warmup_fraction = 0.0;  // Of the run's steps; 0: from warmup_steps.
  double min_lr_ratio = 0.0;
  double power = 1.0;           // polynomial
  double decay_fraction = 0.2;  // wsd: share of the steps that decay
  int64_t cycles = 1;           // cosine_with_restarts
  int64_t timescale = 0;        // inverse_sqrt, steps; 0: the warm-up's, or 10,000 without one
};

enum class DivergencePolicy { kStop, kSkip };

struct DivergenceOptions {
  DivergencePolicy policy = DivergencePolicy::kStop;
  int64_t max_skips = 10;     // Skipped updates in a row, beyond which the run stops.
  double spike_factor = 0.0;  // A loss or gradient norm so many times its average; 0: only NaN.
};

struct EmaOptions {
  double decay = 0.0;  // 0: off.
};

enum class Precision { kFp32, kBf16, kFp16 };
enum class MemoryFormat { kContiguous, kChannelsLast };

struct ParallelOptions {
  int64_t shards = 0;  // Power of two; 0: off.
  bool shard_optimizer = false;
  std::string backend = "auto";  // auto | nccl | shm | mpi
  Precision precision = Precision::kFp32;
  Precision reduce_precision = Precision::kFp32;  // What gradients travel in.
  MemoryFormat memory_format = MemoryFormat::kContiguous;
  bool activation_checkpointing = false;
};

enum class BestCheckpoint { kAuto, kSaved, kKept, kOff };

struct CheckpointOptions {
  int64_t every_steps = 500;  // And at the end; 0: only at the end.
  int64_t keep = 3;
  BestCheckpoint best = BestCheckpoint::kAuto;
};

// Auto: of the samples that are drawn. On: samples are also made where no VAE could draw them.
enum class Memorisation { kAuto, kOn, kOff };

struct EvalOptions {
  int64_t every_steps = 500;  // And before the first and after the last step; 0: off altogether.
  int64_t timesteps = 4;      // Points per validation sample.
  bool overfit_gap = true;    // Evaluate as many training samples as well.
  Memorisation memorisation = Memorisation::kAuto;
};

enum class SamplerName {
  kAuto,
  kDdpm,
  kDdim,
  kEuler,
  kEulerAncestral,
  kHeun,
  kDpmpp2m,
  kFlowEuler
};
enum class TimestepSpacing { kAuto, kLeading, kLinspace, kTrailing };
enum class SigmaSpacing { kAuto, kSchedule, kKarras };

struct SampleOptions {
  std::vector<std::string> prompts = {};  // Empty: some captions of the data.
  std::string negative_prompt = {};       // What guidance leads away from; with prompts only.
  int64_t count = 8;
  SamplerName sampler = SamplerName::kAuto;  // ddim, or flow_euler for flow.
  int64_t steps = 30;
  TimestepSpacing timestep_spacing = TimestepSpacing::kAuto;  // As the model's scheduler config.
  SigmaSpacing sigmas = SigmaSpacing::kAuto;                  // As the model's scheduler config.
  double guidance = 5.0;
  double guidance_rescale = 0.0;  // 0: off.
  uint64_t seed = 0;
  int64_t batch = 1;  // Pictures denoised together.
  std::string
      vae;  // Diffusers folder whose vae/ decodes samples; empty: beside the model's weights.
};

// How a picture is brought to Inception's 299 x 299: as the package of that name does it.
enum class InceptionResize { kPytorchFid, kTorchFidelity };

struct ScoresOptions {
  std::vector<std::string> metrics = {};  // fid, kid, clip_score, latent_frechet; empty: none.
  int64_t every_steps = 0;                // At evaluations of such steps; 0: at every evaluation.
  int64_t count = 1000;                   // Generated pictures.
  std::string reference = "auto";         // auto | validation | train, or a folder of pictures.
  std::string inception = {};             // Inception-v3's weights, a safetensors file.
  InceptionResize inception_resize = InceptionResize::kPytorchFid;
  std::string clip = {};   // Folder of a CLIP image and text encoder.
  int64_t batch = 8;       // Pictures denoised and judged together.
  std::string cache = {};  // Folder of reference features; empty: cache/ in the run directory.
};

struct TraceOptions {
  int64_t first_step = 0;  // 0: no trace.
  int64_t num_steps = 5;
};

struct Config {
  RunOptions run;
  ModelOptions model;
  DataOptions data;
  BatchOptions batch;
  ObjectiveOptions objective;
  NoiseOptions noise;
  OptimOptions optim;
  AdapterOptions adapter;
  FreezeOptions freeze;
  EarlyStoppingOptions early_stopping;
  LrScheduleOptions lr_schedule;
  DivergenceOptions divergence;
  EmaOptions ema;
  ParallelOptions parallel;
  CheckpointOptions checkpoint;
  EvalOptions eval;
  SampleOptions sample;
  ScoresOptions scores;
  TraceOptions trace;
};
}  // namespace trireme
