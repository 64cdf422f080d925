// What tests/parity/test_noise.py and test_optim.py talk to: noise schedules, sampling and
// optimizers by themselves. Usage: diffusion_probe VERB IN.safetensors OUT.safetensors KEY=VALUE...
#include <cstdio>
#include <functional>
#include <iostream>
#include <map>
#include <string>

#include "core/error.h"
#include "trainer/diffusion/guided_model.h"
#include "trainer/diffusion/noise_schedule.h"
#include "trainer/diffusion/samplers.h"
#include "trainer/diffusion/scheduler_config.h"
#include "trainer/optim/lr_schedule.h"
#include "trainer/optim/optimizer_kinds.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
struct Request {
  std::map<std::string, std::string> values;
  [[nodiscard]] std::string text(const std::string& key) const { return values.at(key); }
  [[nodiscard]] double number(const std::string& key) const { return std::stod(values.at(key)); }
  [[nodiscard]] double number_or(const std::string& key, double otherwise) const {
    return values.contains(key) ? number(key) : otherwise;
  }
  [[nodiscard]] int64_t integer(const std::string& key) const { return std::stoll(values.at(key)); }
};

const std::map<std::string, BetaSchedule> kSchedules = {
    {"linear", BetaSchedule::kLinear},
    {"scaled_linear", BetaSchedule::kScaledLinear},
    {"squaredcos_cap_v2", BetaSchedule::kSquaredCosCapV2},
    {"sigmoid", BetaSchedule::kSigmoid},
    {"exp", BetaSchedule::kExp},
    {"laplace", BetaSchedule::kLaplace}};
const std::map<std::string, Prediction> kPredictions = {{"epsilon", Prediction::kEpsilon},
                                                        {"v_prediction", Prediction::kVPrediction},
                                                        {"sample", Prediction::kSample},
                                                        {"flow", Prediction::kFlow}};
const std::map<std::string, SamplerName> kSamplers = {
    {"auto", SamplerName::kAuto},
    {"ddpm", SamplerName::kDdpm},
    {"ddim", SamplerName::kDdim},
    {"euler", SamplerName::kEuler},
    {"euler_ancestral", SamplerName::kEulerAncestral},
    {"heun", SamplerName::kHeun},
    {"dpmpp_2m", SamplerName::kDpmpp2m},
    {"flow_euler", SamplerName::kFlowEuler}};
const std::map<std::string, OptimizerName> kOptimizers = {{"adamw", OptimizerName::kAdamW},
                                                          {"adam", OptimizerName::kAdam},
                                                          {"sgd", OptimizerName::kSgd},
                                                          {"lamb", OptimizerName::kLamb},
                                                          {"lars", OptimizerName::kLars},
                                                          {"lion", OptimizerName::kLion},
                                                          {"adafactor", OptimizerName::kAdafactor}};

NoiseOptions noise_options(const Request& request) {
  return {.schedule = kSchedules.at(request.text("schedule")),
          .beta_start = request.number("beta_start"),
          .beta_end = request.number("beta_end"),
          .timesteps = request.integer("timesteps"),
          .rescale_zero_terminal_snr = request.integer("zero_snr") != 0,
          .trained_betas = {}};
}

// "betas" of `in`, where it has them.
NoiseOptions noise_options(const Request& request, const SafetensorsReader& in) {
  NoiseOptions options = noise_options(request);
  if (in.contains("betas")) {
    const auto betas = in.read("betas");
    const auto* data = betas.const_data_ptr<double>();
    options.trained_betas = {data, data + betas.numel()};
  }
  return options;
}

at::Tensor tensor_of(const std::vector<double>& values) {
  return torch::tensor(values, torch::kDouble);
}

NamedTensors schedule(const Request& request, const SafetensorsReader& in) {
  const NoiseSchedule schedule(noise_options(request, in));
  std::vector<double> snr;
  for (int64_t t = 0; t < schedule.num_timesteps(); ++t) snr.push_back(schedule.snr(t));
  return {{"betas", tensor_of(schedule.betas())},
          {"alphas_cumprod", tensor_of(schedule.alphas_cumprod())},
          {"snr", tensor_of(snr)}};
}

NamedTensors noise(const Request& request, const SafetensorsReader& in) {
  const NoiseSchedule schedule(noise_options(request));
  const ObjectiveOptions objective{
      .prediction = kPredictions.at(request.text("prediction")),
      .snr_gamma = request.number("snr_gamma"),
      .loss = request.number_or("huber_delta", 0.0) > 0 ? LossName::kHuber : LossName::kMse,
      .huber_delta = request.number_or("huber_delta", 0.0)};
  if (request.number_or("validate", 0.0) != 0) validate_objective(objective, schedule);
  const auto times = in.read("timesteps");
  const auto uniforms = in.read("uniforms");
  const auto n = static_cast<size_t>(times.numel());
  const NoisedBatch batch =
      add_noise(schedule, objective, in.read("latents"), in.read("noise"),
                {times.data_ptr<int64_t>(), times.data_ptr<int64_t>() + n},
                {uniforms.data_ptr<double>(), uniforms.data_ptr<double>() + n});
  NamedTensors out = {{"latents", batch.latents},
                      {"target", batch.target.contiguous()},
                      {"times", batch.model_times.to(torch::kDouble)},
                      {"losses", sample_losses(in.read("prediction"), batch)}};
  if (batch.weights.defined()) out.emplace_back("weights", batch.weights);
  return out;
}

// sin(0.7 x) + t / 5000 + the condition's mean: a model that the test computes as well.
class WaveModel final : public DiffusionModel {
 public:
  at::Tensor forward(const at::Tensor& latents, const at::Tensor& timesteps,
                     const Condition& condition, const std::optional<DropoutKey>&) override {
    const auto mean = condition.encoder_hidden_states.mean({1, 2});
    return (0.7 * latents).sin() + (timesteps.to(torch::kFloat) / 5000 + mean).view({-1, 1, 1, 1});
  }
  [[nodiscard]] std::vector<std::pair<std::string, at::Tensor>> named_parameters() const override {
    return {};
  }
  [[nodiscard]] int64_t in_channels() const noexcept override { return 4; }
  [[nodiscard]] int64_t out_channels() const noexcept override { return 4; }
  [[nodiscard]] int64_t sample_size_multiple() const noexcept override { return 1; }
  [[nodiscard]] int64_t cross_attention_dim() const noexcept override { return 8; }
  [[nodiscard]] bool takes_class_labels() const noexcept override { return false; }
  [[nodiscard]] std::string config_json() const override { return "{}"; }
  [[nodiscard]] std::string resolved_config() const override { return ""; }
  [[nodiscard]] std::string folder_name() const override { return "unet"; }
  void to_device(const std::string&) override {}
};

// As the scheduler config of folder= says; `in` holds the noise of the start and "noise/STEP".
NamedTensors sample(const Request& request, const SafetensorsReader& in) {
  const auto config = read_scheduler_config(request.text("folder"));
  const Prediction prediction = config ? config->prediction : Prediction::kEpsilon;
  const NoiseOptions noise = config ? config->noise : NoiseOptions{};
  const NoiseSchedule schedule(noise);
  SampleOptions options;
  options.sampler = kSamplers.at(request.text("sampler"));
  options.steps = request.integer("steps");
  options.sigmas = request.integer("karras") != 0 ? SigmaSpacing::kKarras : SigmaSpacing::kAuto;
  const SamplingPlan plan = plan_sampling(
      options, config ? config->sampling : SamplingRules::of_trireme(noise, prediction), schedule,
      prediction);
  WaveModel model;
  Condition condition;
  condition.encoder_hidden_states = in.read("condition");
  Condition unconditional;
  unconditional.encoder_hidden_states = in.read("unconditional");
  const GuidedModel guided(
      model, {.scale = request.number("guidance"), .rescale = request.number("rescale")}, condition,
      unconditional);
  std::vector<double> times;
  const auto latents =
      run_sampler(plan, in.read("noise"),
                  {.model =
                       [&](const at::Tensor& x, double time) {
                         times.push_back(time);
                         return guided(x, time);
                       },
                   .noise = [&](int64_t step) { return in.read("noise/" + std::to_string(step)); },
                   .progress = {}});
  return {{"latents", latents}, {"timesteps", tensor_of(times)}};
}

// The parameters of `in` ("p/NAME") in one bucket with 256-element segments; lr_multiplier/NAME=
// and decay_multiplier/NAME= of the request make groups.
FlatBucket make_bucket(const Request& request, const SafetensorsReader& in) {
  FlatBucket bucket;
  int64_t offset = 0;
  for (const auto& [name, entry] : in.entries()) {
    if (!name.starts_with("p/")) continue;
    const int64_t count = in.read(name).numel();
    FlatSegment segment{name.substr(2), entry.shape, offset, count};
    segment.lr_multiplier = request.number_or("lr_multiplier/" + segment.name, 1.0);
    segment.decay_multiplier = request.number_or("decay_multiplier/" + segment.name, 1.0);
    bucket.segments.push_back(segment);
    offset += (count + 255) / 256 * 256;
  }
  bucket.params = torch::zeros({offset});
  bucket.grads = torch::zeros({offset});
  return bucket;
}

void fill(const at::Tensor& flat, const FlatBucket& bucket, const SafetensorsReader& in,
          const std::string& prefix) {
  for (const auto& segment : bucket.segments) {
    flat.narrow(0, segment.offset, segment.num_elements)
        .copy_(in.read(prefix + segment.name).view({-1}));
  }
}

NamedTensors optimize(const Request& request, const SafetensorsReader& in) {
  OptimOptions options;
  options.name = kOptimizers.at(request.text("name"));
  options.betas = {request.number("beta1"), request.number("beta2")};
  options.momentum = request.number("momentum");
  options.nesterov = request.integer("nesterov") != 0;
  options.eps = request.number("eps");
  options.weight_decay = request.number("weight_decay");
  std::vector<FlatBucket> buckets = {make_bucket(request, in)};
  FlatBucket& bucket = buckets.front();
  fill(bucket.params, bucket, in, "p/");
  auto optimizer =
      request.integer("tensor_ops") != 0
          ? internal::make_elementwise_optimizer(options, buckets, {{0, bucket.params.numel()}},
                                                 internal::ComputePath::kTensorOps)
          : make_optimizer(options, buckets);
  Ema ema(request.number("ema"), buckets);
  const auto rates = in.read("rates");
  const auto scales = in.read("scales");
  for (int64_t step = 1; step <= rates.numel(); ++step) {
    fill(bucket.grads, bucket, in, "g/" + std::to_string(step) + "/");
    optimizer->step(step, rates[step - 1].item<double>(), scales[step - 1]);
    ema.update(step, scales[step - 1]);
  }
  NamedTensors out;
  for (const auto& segment : bucket.segments) {
    out.emplace_back("p/" + segment.name,
                     bucket.params.narrow(0, segment.offset, segment.num_elements)
                         .view(segment.shape)
                         .contiguous());
  }
  for (const auto& [name, tensor] : ema.tensors()) out.emplace_back("ema/" + name, tensor);
  for (const auto& [name, tensor] : optimizer->state()) {
    out.emplace_back("s/" + name, tensor.contiguous());
  }
  out.emplace_back("sum_of_squares", sum_of_squares(buckets));
  return out;
}

// The learning rates of steps 1 … steps=.
NamedTensors rates(const Request& request, const SafetensorsReader&) {
  const std::map<std::string, LrScheduleName> names = {
      {"constant", LrScheduleName::kConstant},
      {"linear", LrScheduleName::kLinear},
      {"cosine", LrScheduleName::kCosine},
      {"polynomial", LrScheduleName::kPolynomial},
      {"cosine_with_restarts", LrScheduleName::kCosineWithRestarts},
      {"inverse_sqrt", LrScheduleName::kInverseSqrt}};
  LrScheduleOptions options;
  options.name = names.at(request.text("name"));
  options.warmup_steps = request.integer("warmup");
  options.min_lr_ratio = request.number_or("min_lr_ratio", 0.0);
  options.power = request.number_or("power", 1.0);
  options.cycles = static_cast<int64_t>(request.number_or("cycles", 1.0));
  options.timescale = static_cast<int64_t>(request.number_or("timescale", 0.0));
  std::vector<double> values;
  for (int64_t step = 1; step <= request.integer("steps"); ++step) {
    values.push_back(learning_rate(options, 1.0, step, request.integer("steps")));
  }
  return {{"rates", tensor_of(values)}};
}

// Reads scheduler_config.json of folder=, prints what it says, and writes it anew to out=.
NamedTensors scheduler(const Request& request, const SafetensorsReader&) {
  const auto found = read_scheduler_config(request.text("folder"));
  if (!found) {
    std::cout << "none\n";
    return {};
  }
  for (const auto& [name, value] : kSchedules) {
    if (value == found->noise.schedule) std::cout << name;
  }
  for (const auto& [name, value] : kPredictions) {
    if (value == found->prediction) std::cout << ' ' << name;
  }
  std::cout << ' ' << found->noise.beta_start << ' ' << found->noise.beta_end << ' '
            << found->noise.timesteps << ' ' << found->noise.rescale_zero_terminal_snr;
  if (!found->noise.trained_betas.empty()) {
    std::cout << ' ' << found->noise.trained_betas.size() << " betas";
  }
  std::cout << '\n';
  write_text_file_atomically(
      request.text("out"), scheduler_config_json(found->noise, found->prediction, found->sampling));
  return {};
}

int run(const std::vector<std::string>& arguments) {
  using Verb = std::function<NamedTensors(const Request&, const SafetensorsReader&)>;
  const std::map<std::string, Verb> verbs = {{"schedule", schedule}, {"noise", noise},
                                             {"sample", sample},     {"optimize", optimize},
                                             {"rates", rates},       {"scheduler", scheduler}};
  Request request;
  for (size_t i = 4; i < arguments.size(); ++i) {
    const auto split = arguments[i].find('=');
    request.values[arguments[i].substr(0, split)] = arguments[i].substr(split + 1);
  }
  const SafetensorsReader in(arguments.at(2));
  const auto out = verbs.at(arguments.at(1))(request, in);
  write_safetensors(arguments.at(3), out);
  return 0;
}
}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  try {
    return trireme::run({argv, argv + argc});
  } catch (const trireme::Error& error) {
    std::cerr << error.what() << '\n';
    return static_cast<int>(error.code());
  }
}
