#include "launcher/config_schema.h"

#include <algorithm>

#include "core/error.h"

namespace trireme {
namespace {
template <typename T>
struct Names;
template <>
struct Names<Prediction> {
  static constexpr std::array<std::string_view, 4> kAll = {"epsilon", "v_prediction", "sample",
                                                           "flow"};
};
template <>
struct Names<BetaSchedule> {
  static constexpr std::array<std::string_view, 6> kAll = {
      "linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "exp", "laplace"};
};
template <>
struct Names<OptimizerName> {
  static constexpr std::array<std::string_view, 7> kAll = {"adamw", "adam", "sgd",      "lamb",
                                                           "lars",  "lion", "adafactor"};
};
template <>
struct Names<LrScaling> {
  static constexpr std::array<std::string_view, 4> kAll = {"linear", "sqrt", "power", "sqrt_adam"};
};
template <>
struct Names<LrScheduleName> {
  static constexpr std::array<std::string_view, 7> kAll = {
      "constant", "linear", "cosine", "polynomial", "wsd", "cosine_with_restarts", "inverse_sqrt"};
};
template <>
struct Names<LossName> {
  static constexpr std::array<std::string_view, 2> kAll = {"mse", "huber"};
};
template <>
struct Names<TimestepDistribution> {
  static constexpr std::array<std::string_view, 2> kAll = {"uniform", "logit_normal"};
};
template <>
struct Names<TimestepSampling> {
  static constexpr std::array<std::string_view, 2> kAll = {"independent", "low_discrepancy"};
};
template <>
struct Names<MetricMode> {
  static constexpr std::array<std::string_view, 3> kAll = {"auto", "min", "max"};
};
template <>
struct Names<DivergencePolicy> {
  static constexpr std::array<std::string_view, 2> kAll = {"stop", "skip"};
};
template <>
struct Names<Memorisation> {
  static constexpr std::array<std::string_view, 3> kAll = {"auto", "on", "off"};
};
template <>
struct Names<BestCheckpoint> {
  static constexpr std::array<std::string_view, 4> kAll = {"auto", "saved", "kept", "off"};
};
template <>
struct Names<SamplerName> {
  static constexpr std::array<std::string_view, 8> kAll = {
      "auto", "ddpm", "ddim", "euler", "euler_ancestral", "heun", "dpmpp_2m", "flow_euler"};
};
template <>
struct Names<TimestepSpacing> {
  static constexpr std::array<std::string_view, 4> kAll = {"auto", "leading", "linspace",
                                                           "trailing"};
};
template <>
struct Names<SigmaSpacing> {
  static constexpr std::array<std::string_view, 3> kAll = {"auto", "schedule", "karras"};
};
template <>
struct Names<InceptionResize> {
  static constexpr std::array<std::string_view, 2> kAll = {"pytorch_fid", "torch_fidelity"};
};
template <>
struct Names<Precision> {
  static constexpr std::array<std::string_view, 3> kAll = {"fp32", "bf16", "fp16"};
};

template <>
struct Names<MemoryFormat> {
  static constexpr std::array<std::string_view, 2> kAll = {"contiguous", "channels_last"};
};

template <typename T>
ConfigValue to_value(const T& field) {
  if constexpr (std::is_enum_v<T>) {
    return std::string(Names<T>::kAll.at(static_cast<size_t>(field)));
  } else if constexpr (std::is_same_v<T, uint64_t>) {
    return static_cast<int64_t>(field);
  } else {
    return field;
  }
}

template <typename T>
void from_value(const ConfigValue& value, T& field) {
  if constexpr (std::is_enum_v<T>) {
    const auto found = std::ranges::find(Names<T>::kAll, std::get<std::string>(value));
    check(found != Names<T>::kAll.end(), "an enumerator's name");
    field = static_cast<T>(found - Names<T>::kAll.begin());
  } else if constexpr (std::is_same_v<T, uint64_t>) {
    field = static_cast<uint64_t>(std::get<int64_t>(value));
  } else {
    field = std::get<T>(value);
  }
}

template <typename Table, typename T>
T field_type(T Table::*);

// `options` bears what differs from the defaults of ConfigKey.
template <auto kTable, auto kField>
ConfigKey key(std::string_view name, ConfigKey options = {}) {
  using T = decltype(field_type(kField));
  options.name = name;
  if constexpr (std::is_enum_v<T>)
    options.choices.assign(Names<T>::kAll.begin(), Names<T>::kAll.end());
  options.get = [](const Config& config) { return to_value(config.*kTable.*kField); };
  options.set = [](Config& config, const ConfigValue& value) {
    from_value(value, config.*kTable.*kField);
  };
  return options;
}

using Ends = ConfigRange::Ends;
constexpr auto kFree = Trajectory::kFree;
constexpr auto kScored = Trajectory::kWithScoredStopping;
constexpr auto kUnlessDefault = ConfigKey::Presence::kUnlessDefault;
constexpr double kMaxCount = 1e12;
constexpr ConfigRange kPositive = {.low = 0, .ends = Ends::kLowOut};
constexpr ConfigRange kNotNegative = {.low = 0};
constexpr ConfigRange kProbability = {.low = 0, .high = 1};
constexpr ConfigRange kBelowOne = {.low = 0, .high = 1, .ends = Ends::kHighOut};
constexpr ConfigRange kInsideUnit = {.low = 0, .high = 1, .ends = Ends::kBothOut};
constexpr ConfigRange kCount = {.low = 1, .high = kMaxCount};
constexpr ConfigRange kCountOrOff = {.low = 0, .high = kMaxCount};

std::vector<ConfigKey> run_keys() {
  using C = Config;
  using R = RunOptions;
  using M = ModelOptions;
  using D = DataOptions;
  using B = BatchOptions;
  return {
      key<&C::run, &R::name>("run.name", {.trajectory = kFree}),
      key<&C::run, &R::dir>("run.dir", {.trajectory = kFree}),
      key<&C::run, &R::seed>("run.seed", {.range = kNotNegative}),
      key<&C::run, &R::steps>("run.steps", {.range = kCount, .presence = kUnlessDefault}),
      key<&C::run, &R::epochs>(
          "run.epochs",
          {.range = {.low = 0, .high = 1e9, .ends = Ends::kLowOut}, .presence = kUnlessDefault}),
      key<&C::run, &R::max_hours>("run.max_hours", {.trajectory = kFree, .range = kNotNegative}),
      key<&C::model, &M::weights>("model.weights", {.presence = kUnlessDefault}),
      key<&C::model, &M::config>("model.config", {.presence = kUnlessDefault}),
      key<&C::model, &M::dropout>("model.dropout", {.range = kBelowOne}),
      key<&C::data, &D::train>("data.train"),
      key<&C::data, &D::validation>("data.validation",
                                    {.trajectory = Trajectory::kWithEarlyStopping}),
      key<&C::data, &D::validation_fraction>("data.validation_fraction", {.range = kBelowOne}),
      key<&C::data, &D::prior>("data.prior"),
      key<&C::data, &D::prior_weight>("data.prior_weight", {.range = kNotNegative}),
      key<&C::data, &D::shuffle>("data.shuffle"),
      key<&C::data, &D::caption_dropout>("data.caption_dropout", {.range = kProbability}),
      key<&C::data, &D::flip>("data.flip", {.range = kProbability}),
      key<&C::data, &D::crop>("data.crop", {.range = {.low = 0, .high = 65536}}),
      key<&C::data, &D::repeats>("data.repeats", {.range = {.low = 1, .high = 1e6}}),
      key<&C::batch, &B::global>("batch.global",
                                 {.range = {.low = 1, .high = 1e9}, .presence = kUnlessDefault}),
      key<&C::batch, &B::per_rank>("batch.per_rank",
                                   {.range = {.low = 1, .high = 1e6}, .presence = kUnlessDefault}),
      key<&C::batch, &B::micro>("batch.micro", {.range = {.low = 0, .high = 1e6}}),
      key<&C::batch, &B::grow_at>("batch.grow_at", {.range = {.low = 1, .high = 1e15}}),
      key<&C::batch, &B::grow_to>("batch.grow_to", {.range = {.low = 1, .high = 1e9}}),
  };
}

std::vector<ConfigKey> objective_keys() {
  using C = Config;
  using O = ObjectiveOptions;
  using N = NoiseOptions;
  return {
      key<&C::objective, &O::prediction>("objective.prediction"),
      key<&C::objective, &O::snr_gamma>("objective.snr_gamma", {.range = kNotNegative}),
      key<&C::objective, &O::noise_offset>("objective.noise_offset", {.range = kNotNegative}),
      key<&C::objective, &O::loss>("objective.loss"),
      key<&C::objective, &O::huber_delta>("objective.huber_delta", {.range = kPositive}),
      key<&C::objective, &O::timestep_distribution>("objective.timestep_distribution"),
      key<&C::objective, &O::timestep_sampling>("objective.timestep_sampling"),
      key<&C::objective, &O::timestep_range>("objective.timestep_range", {.range = kProbability}),
      key<&C::objective, &O::logit_mean>("objective.logit_mean"),
      key<&C::objective, &O::logit_std>("objective.logit_std", {.range = kPositive}),
      key<&C::noise, &N::schedule>("noise.schedule"),
      key<&C::noise, &N::beta_start>("noise.beta_start", {.range = kInsideUnit}),
      key<&C::noise, &N::beta_end>("noise.beta_end", {.range = kInsideUnit}),
      key<&C::noise, &N::timesteps>("noise.timesteps", {.range = {.low = 1, .high = 1e6}}),
      key<&C::noise, &N::rescale_zero_terminal_snr>("noise.rescale_zero_terminal_snr"),
      key<&C::noise, &N::trained_betas>("noise.trained_betas", {.range = kInsideUnit}),
  };
}

std::vector<ConfigKey> optim_keys() {
  using C = Config;
  using O = OptimOptions;
  using L = LrScheduleOptions;
  return {
      key<&C::optim, &O::name>("optim.name"),
      key<&C::optim, &O::lr>("optim.lr", {.range = kPositive}),
      key<&C::optim, &O::betas>("optim.betas", {.range = kBelowOne}),
      key<&C::optim, &O::momentum>("optim.momentum", {.range = kBelowOne}),
      key<&C::optim, &O::nesterov>("optim.nesterov"),
      key<&C::optim, &O::eps>("optim.eps", {.range = kNotNegative}),
      key<&C::optim, &O::weight_decay>("optim.weight_decay", {.range = kNotNegative}),
      key<&C::optim, &O::decay_norms_and_biases>("optim.decay_norms_and_biases"),
      key<&C::optim, &O::max_grad_norm>("optim.max_grad_norm", {.range = kNotNegative}),
      key<&C::optim, &O::max_grad_value>("optim.max_grad_value", {.range = kNotNegative}),
      key<&C::optim, &O::lr_multipliers>("optim.lr_multipliers", {.range = kNotNegative}),
      key<&C::optim, &O::lr_base_batch>("optim.lr_base_batch", {.range = kCountOrOff}),
      key<&C::optim, &O::lr_scaling>("optim.lr_scaling"),
      key<&C::optim, &O::lr_scaling_power>("optim.lr_scaling_power",
                                           {.range = {.low = 0, .high = 4}}),
      key<&C::lr_schedule, &L::name>("lr_schedule.name"),
      key<&C::lr_schedule, &L::warmup_steps>("lr_schedule.warmup_steps", {.range = kCountOrOff}),
      key<&C::lr_schedule, &L::warmup_samples>("lr_schedule.warmup_samples",
                                               {.range = {.low = 0, .high = 1e15}}),
      key<&C::lr_schedule, &L::warmup_fraction>("lr_schedule.warmup_fraction",
                                                {.range = kProbability}),
      key<&C::lr_schedule, &L::min_lr_ratio>("lr_schedule.min_lr_ratio", {.range = kProbability}),
      key<&C::lr_schedule, &L::power>("lr_schedule.power", {.range = kPositive}),
      key<&C::lr_schedule, &L::decay_fraction>("lr_schedule.decay_fraction",
                                               {.range = kProbability}),
      key<&C::lr_schedule, &L::cycles>("lr_schedule.cycles", {.range = kCount}),
      key<&C::lr_schedule, &L::timescale>("lr_schedule.timescale", {.range = kCountOrOff}),
      key<&C::divergence, &DivergenceOptions::policy>("divergence.policy"),
      key<&C::divergence, &DivergenceOptions::max_skips>("divergence.max_skips",
                                                         {.range = kCountOrOff}),
      key<&C::divergence, &DivergenceOptions::spike_factor>("divergence.spike_factor",
                                                            {.range = kNotNegative}),
  };
}

std::vector<ConfigKey> weights_keys() {
  using C = Config;
  using A = AdapterOptions;
  using S = EarlyStoppingOptions;
  return {
      key<&C::adapter, &A::type>("adapter.type", {.choices = {"none", "lora"}}),
      key<&C::adapter, &A::rank>("adapter.rank", {.range = {.low = 1, .high = 65536}}),
      key<&C::adapter, &A::alpha>("adapter.alpha", {.range = kPositive}),
      key<&C::adapter, &A::targets>("adapter.targets"),
      key<&C::adapter, &A::dropout>("adapter.dropout", {.range = kBelowOne}),
      key<&C::adapter, &A::use_rslora>("adapter.use_rslora"),
      key<&C::freeze, &FreezeOptions::patterns>("freeze.patterns"),
      key<&C::freeze, &FreezeOptions::groups>("freeze.groups"),
      key<&C::freeze, &FreezeOptions::first_blocks>("freeze.first_blocks",
                                                    {.range = {.low = 0, .high = 100}}),
      key<&C::early_stopping, &S::metric>("early_stopping.metric"),
      key<&C::early_stopping, &S::mode>("early_stopping.mode"),
      key<&C::early_stopping, &S::patience>("early_stopping.patience", {.range = kCountOrOff}),
      key<&C::early_stopping, &S::min_delta>("early_stopping.min_delta", {.range = kNotNegative}),
      key<&C::ema, &EmaOptions::decay>("ema.decay", {.range = kBelowOne}),
  };
}

std::vector<ConfigKey> machinery_keys() {
  using C = Config;
  using P = ParallelOptions;
  constexpr auto kWithEarlyStopping = Trajectory::kWithEarlyStopping;
  return {
      key<&C::parallel, &P::shards>("parallel.shards", {.range = {.low = 0, .high = 1 << 20}}),
      key<&C::parallel, &P::shard_optimizer>("parallel.shard_optimizer", {.trajectory = kFree}),
      key<&C::parallel, &P::backend>(
          "parallel.backend", {.trajectory = kFree, .choices = {"auto", "nccl", "shm", "mpi"}}),
      key<&C::parallel, &P::precision>("parallel.precision"),
      key<&C::parallel, &P::reduce_precision>("parallel.reduce_precision"),
      key<&C::parallel, &P::memory_format>("parallel.memory_format"),
      key<&C::parallel, &P::activation_checkpointing>("parallel.activation_checkpointing"),
      key<&C::checkpoint, &CheckpointOptions::every_steps>(
          "checkpoint.every_steps", {.trajectory = kFree, .range = kCountOrOff}),
      key<&C::checkpoint, &CheckpointOptions::keep>("checkpoint.keep",
                                                    {.trajectory = kFree, .range = kCountOrOff}),
      key<&C::checkpoint, &CheckpointOptions::best>("checkpoint.best", {.trajectory = kFree}),
      key<&C::eval, &EvalOptions::every_steps>(
          "eval.every_steps", {.trajectory = kWithEarlyStopping, .range = kCountOrOff}),
      key<&C::eval, &EvalOptions::timesteps>(
          "eval.timesteps", {.trajectory = kWithEarlyStopping, .range = {.low = 1, .high = 10000}}),
      key<&C::eval, &EvalOptions::overfit_gap>("eval.overfit_gap",
                                               {.trajectory = kWithEarlyStopping}),
      key<&C::eval, &EvalOptions::memorisation>("eval.memorisation",
                                                {.trajectory = kWithEarlyStopping}),
  };
}

std::vector<ConfigKey> sample_keys() {
  using C = Config;
  using S = SampleOptions;
  return {
      key<&C::sample, &S::prompts>("sample.prompts", {.trajectory = kFree}),
      key<&C::sample, &S::negative_prompt>("sample.negative_prompt", {.trajectory = kScored}),
      key<&C::sample, &S::count>("sample.count",
                                 {.trajectory = kFree, .range = {.low = 0, .high = 65536}}),
      key<&C::sample, &S::sampler>("sample.sampler", {.trajectory = kScored}),
      key<&C::sample, &S::steps>("sample.steps",
                                 {.trajectory = kScored, .range = {.low = 1, .high = 1e6}}),
      key<&C::sample, &S::timestep_spacing>("sample.timestep_spacing", {.trajectory = kScored}),
      key<&C::sample, &S::sigmas>("sample.sigmas", {.trajectory = kScored}),
      key<&C::sample, &S::guidance>("sample.guidance",
                                    {.trajectory = kScored, .range = kNotNegative}),
      key<&C::sample, &S::guidance_rescale>("sample.guidance_rescale",
                                            {.trajectory = kScored, .range = kProbability}),
      key<&C::sample, &S::seed>("sample.seed", {.trajectory = kScored, .range = kNotNegative}),
      key<&C::sample, &S::batch>("sample.batch",
                                 {.trajectory = kFree, .range = {.low = 1, .high = 65536}}),
      key<&C::sample, &S::vae>("sample.vae", {.trajectory = kScored}),
  };
}

std::vector<ConfigKey> scores_keys() {
  using C = Config;
  using S = ScoresOptions;
  return {
      key<&C::scores, &S::metrics>("scores.metrics", {.trajectory = kScored}),
      key<&C::scores, &S::every_steps>("scores.every_steps",
                                       {.trajectory = kScored, .range = kCountOrOff}),
      key<&C::scores, &S::count>("scores.count",
                                 {.trajectory = kScored, .range = {.low = 2, .high = 1e6}}),
      key<&C::scores, &S::reference>("scores.reference", {.trajectory = kScored}),
      key<&C::scores, &S::inception>("scores.inception", {.trajectory = kScored}),
      key<&C::scores, &S::inception_resize>("scores.inception_resize", {.trajectory = kScored}),
      key<&C::scores, &S::clip>("scores.clip", {.trajectory = kScored}),
      key<&C::scores, &S::batch>("scores.batch",
                                 {.trajectory = kScored, .range = {.low = 1, .high = 65536}}),
      key<&C::scores, &S::cache>("scores.cache", {.trajectory = kFree}),
  };
}

std::vector<ConfigKey> trace_keys() {
  using C = Config;
  return {
      key<&C::trace, &TraceOptions::first_step>("trace.first_step",
                                                {.trajectory = kFree, .range = kCountOrOff}),
      key<&C::trace, &TraceOptions::num_steps>(
          "trace.num_steps", {.trajectory = kFree, .range = {.low = 1, .high = 1000}}),
  };
}

std::vector<ConfigKey> make_schema() {
  std::vector<ConfigKey> keys;
  for (auto part : {run_keys(), objective_keys(), optim_keys(), weights_keys(), machinery_keys(),
                    sample_keys(), scores_keys(), trace_keys()}) {
    keys.insert(keys.end(), part.begin(), part.end());
  }
  return keys;
}
}  // namespace

const std::vector<ConfigKey>& config_schema() {
  static const std::vector<ConfigKey> kSchema = make_schema();
  return kSchema;
}

const ConfigKey* find_config_key(std::string_view name) {
  const auto& schema = config_schema();
  const auto found = std::ranges::find(schema, name, &ConfigKey::name);
  return found == schema.end() ? nullptr : &*found;
}
}  // namespace trireme
