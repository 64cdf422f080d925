#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/dataset.h"
#include "launcher/command_line.h"
#include "launcher/report_table.h"
#include "launcher/verbs.h"
#include "study/calibration.h"
#include "study/fit_report.h"
#include "study/plan.h"
#include "study/trained_layers.h"
#include "trainer/models/json_file.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;
struct PlanArguments {
  ConfigArguments config;
  std::string gpu_type = "h100";
  std::string network;
  std::vector<int> ranks = {1, 8, 64};
  int gpus_per_node = 0;
  std::vector<std::string> calibration;
  double price = -1.0;
  double samples = 0.0;
  double noise_scale = 0.0;
  double e_min = 0.0;
  std::vector<int64_t> size;
  int64_t text_tokens = -1;
  OutputFormat format = OutputFormat::kTable;
};

// config.json of the network that the configuration names, whether or not it can be trained.
fs::path model_config_file(const Config& config) {
  if (config.model.weights.empty()) return config.model.config;
  const fs::path weights = config.model.weights;
  std::error_code error;
  if (!fs::is_directory(weights, error)) return weights.parent_path() / "config.json";
  for (const char* part : {"unet", "transformer", "."}) {
    if (fs::exists(weights / part / "config.json", error)) return weights / part / "config.json";
  }
  throw InputError("model.weights: neither " + (weights / "unet/config.json").string() + " nor " +
                   (weights / "transformer/config.json").string() + " nor " +
                   (weights / "config.json").string() + " exists.");
}

// The data that the configuration names; null where it is not on this machine.
std::unique_ptr<LatentDataset> open_data(const Config& config) {
  std::error_code error;
  for (const auto& file : config.data.train) {
    if (!fs::exists(file, error)) return nullptr;
  }
  return LatentDataset::open({config.data.train.begin(), config.data.train.end()});
}

InputShape input_of(const PlanArguments& arguments, const nlohmann::json& model,
                    const LatentDataset* data) {
  InputShape input = default_input(model);
  if (data != nullptr) {
    const auto& largest =
        std::ranges::max(data->classes(), {}, [](const auto& c) { return c.num_samples; });
    input.height = largest.shape.height;
    input.width = largest.shape.width;
    if (const auto text = data->text()) input.text_tokens = text->length;
  }
  if (!arguments.size.empty()) {
    input.height = arguments.size.front();
    input.width = arguments.size.back();
  }
  if (arguments.text_tokens >= 0) input.text_tokens = arguments.text_tokens;
  return input;
}

double bytes_per_state(const OptimOptions& optim) {
  switch (optim.name) {
    case OptimizerName::kSgd:
    case OptimizerName::kLars:
      return optim.momentum != 0.0 ? 4.0 : 0.0;
    case OptimizerName::kLion:
      return 4.0;
    case OptimizerName::kAdafactor:
      return 0.0;  // Rows and columns only.
    default:
      return 8.0;
  }
}

double total_samples(const PlanArguments& arguments, const Config& config,
                     const LatentDataset* data) {
  if (arguments.samples > 0.0) return arguments.samples;
  if (config.run.steps > 0 && config.batch.global > 0) {
    return static_cast<double>(config.run.steps * config.batch.global);
  }
  if (config.run.epochs > 0.0 && data != nullptr) {
    return config.run.epochs * static_cast<double>(data->num_samples());
  }
  throw UsageError(
      "plan cannot tell how many samples the training takes: give --samples, or run.steps with "
      "batch.global, or run.epochs and data that is on this machine.");
}

double bytes_of(Precision precision) { return precision == Precision::kFp32 ? 4.0 : 2.0; }

// As Trainer sets its reducer up.
ReductionPlan reduction_of(const Config& config, const NetworkCost& network) {
  const ParallelOptions& parallel = config.parallel;
  ReductionPlan reduction{.buckets = plan_bucket_times(network, 0),
                          .bytes_per_gradient = bytes_of(parallel.reduce_precision),
                          .micro = config.batch.micro,
                          .shards = parallel.shards};
  if (parallel.shard_optimizer) reduction.mode = ReductionPlan::Mode::kShardOptimizer;
  if (parallel.shards > 0 || parallel.reduce_precision != Precision::kFp32) {
    reduction.sum = ReductionPlan::Sum::kAfterExchange;
  }
  return reduction;
}

PlanInputs inputs_of(const PlanArguments& arguments, Calibration& calibration) {
  const Config config = load(arguments.config).config;
  const fs::path file = model_config_file(config);
  const nlohmann::json model = read_json_object(file, "model config");
  const auto data = open_data(config);
  PlanInputs inputs;
  inputs.config = config;
  inputs.network = count_network(model, file, input_of(arguments, model, data.get()));
  leave_trained(inputs.network, config);
  inputs.gpu = find_gpu(arguments.gpu_type);
  inputs.fabric = fabric_of(inputs.gpu);
  if (arguments.gpus_per_node > 0) inputs.fabric.ranks_per_node = arguments.gpus_per_node;
  if (!arguments.network.empty()) {
    const NetworkPreset& network = find_network(arguments.network);
    inputs.fabric.nic_gbps = network.nic_gbps;
    inputs.fabric.latency_scale = network.latency_scale;
  }
  inputs.compute = preset_compute(inputs.gpu, inputs.network, config.parallel);
  inputs.reduction = reduction_of(config, inputs.network);
  const bool has_ema = config.ema.decay > 0.0;
  inputs.memory = {.bytes_per_weight = 4.0,
                   .bytes_per_trained = 4.0,
                   .bytes_per_state = bytes_per_state(config.optim) + (has_ema ? 4.0 : 0.0),
                   .bytes_per_stored = bytes_of(config.parallel.precision)};
  inputs.price_per_hour = arguments.price >= 0.0 ? arguments.price : inputs.gpu.price_per_hour;
  inputs.total_samples = total_samples(arguments, config, data.get());
  if (arguments.noise_scale > 0.0) {
    inputs.tradeoff = {.noise_scale = arguments.noise_scale, .e_min = arguments.e_min};
    if (arguments.e_min == 0.0) settle_e_min(inputs, arguments.ranks);
  }
  place_all_reduces(inputs.fabric, calibration);
  inputs.fabric = calibrate_fabric(inputs.fabric, calibration.all_reduces);
  if (!calibration.steps.empty()) {
    inputs.compute =
        calibrate_compute(inputs.compute, inputs.reduction, inputs.fabric, calibration.steps);
  }
  return inputs;
}

std::string percent(double share) {
  return format_number(std::round(1000.0 * share) / 10.0) + " %";
}

std::string duration(double seconds) {
  char text[32];
  if (seconds < 120.0) {
    std::snprintf(text, sizeof(text), "%.3g s", seconds);
  } else if (seconds < 7200.0) {
    std::snprintf(text, sizeof(text), "%.1f min", seconds / 60.0);
  } else {
    std::snprintf(text, sizeof(text), "%.1f h", seconds / 3600.0);
  }
  return text;
}

std::string describe_best_batch(const PlanRow& row) {
  if (row.best_batch == 0.0) {
    return row.best_limit == BatchLimit::kMemory ? "none fits a rank's memory; lower batch.micro"
                                                 : "none is possible on so many ranks";
  }
  const std::string found = format_count(std::llround(row.best_batch)) + ": target in " +
                            duration(row.best_seconds) + ", " + format_rounded(row.best_cost) +
                            " USD";
  switch (row.best_limit) {
    case BatchLimit::kNone:
      return found;
    case BatchLimit::kMemory:
      return found + "; larger ones are faster, but need more memory: set batch.micro";
    case BatchLimit::kNoiseScale:
      return found + "; beyond " + format_number(kNoiseScalesKnown) +
             " noise scales, where this trade-off is an extrapolation";
  }
  throw InternalError("a limit of the batch without words");
}

// What the calibration's measurements decide; the rest is presets.
void print_calibration(const PlanInputs& inputs, const Calibration& calibration,
                       ReportTable& table) {
  const ComputeModel& compute = inputs.compute;
  const std::string model = format_rounded(1e3 * compute.fixed_seconds) + " ms + " +
                            format_rounded(1e3 * compute.seconds_per_sample) + " ms a sample, ";
  const auto num_steps = static_cast<int64_t>(calibration.steps.size());
  table.row("step model",
            model + (num_steps > 0 ? "calibrated from " + format_plural(num_steps, "step")
                                   : "a preset for " + std::string(inputs.gpu.name) +
                                         ": calibrate it (--calibrate)"));
  const Fabric& fabric = inputs.fabric;
  const auto report = [&](const char* name, double gbps, double latency_scale, bool is_of_node) {
    int64_t count = 0;
    std::set<int> ranks;
    for (const auto& point : calibration.all_reduces) {
      if ((point.num_ranks <= fabric.ranks_per_node) != is_of_node) continue;
      ++count;
      ranks.insert(point.num_ranks);
    }
    if (count == 0) return;
    std::string of;
    for (const int number : ranks) of += (of.empty() ? "" : ", ") + std::to_string(number);
    table.row(name, format_rounded(gbps) + " GB/s a rank, latency x " +
                        format_rounded(latency_scale) + ", calibrated from " +
                        format_plural(count, "all-reduce") + " of " + of + " ranks");
  };
  report("links of a node", fabric.links_gbps, fabric.links_latency_scale, true);
  report("network", fabric.nic_gbps, fabric.latency_scale, false);
}

void print_row(const PlanInputs& inputs, const PlanRow& row, ReportTable& table) {
  table.heading(format_plural(row.num_ranks, "rank") + " on " +
                format_plural(row.num_nodes, "node") + ", global batch " +
                format_count(std::llround(row.global_batch)));
  if (!row.is_possible) {
    table.note("not possible: " + row.refusal);
  } else {
    const StepTime& step = row.step;
    const auto ms = [](double seconds) { return format_rounded(1e3 * seconds) + " ms"; };
    table.row("step", ms(step.total()) + ": forward " + ms(step.forward_seconds) + ", backward " +
                          ms(step.backward_seconds) + ", fixed " + ms(step.fixed_seconds) +
                          ", exposed communication " + ms(step.comm_exposed_seconds) + " (of " +
                          ms(step.comm_seconds) + "), stragglers " + ms(step.straggler_seconds));
    table.row("throughput", format_rounded(row.samples_per_second) + " images/s, efficiency " +
                                percent(row.efficiency) + ", MFU " + percent(row.mfu));
    table.row("memory of a rank",
              format_bytes(static_cast<uint64_t>(row.memory_bytes)) +
                  (row.fits ? ""
                            : ": too much; lower batch.micro, checkpoint activations or shard the "
                              "optimizer"));
    table.row("whole training", duration(row.train_seconds) + ", " +
                                    format_rounded(row.train_seconds / 3600.0 * row.num_ranks) +
                                    " rank hours, " + format_rounded(row.cost) + " USD");
    table.row("next bottleneck", advice_on(row.bottleneck));
  }
  if (inputs.tradeoff) table.row("best batch", describe_best_batch(row));
}

void print_plan(const PlanInputs& inputs, const Calibration& calibration,
                const std::vector<PlanRow>& rows) {
  ReportTable table;
  table.heading(inputs.network.class_name);
  table.row("parameters", format_count(inputs.network.num_parameters()) + " in " +
                              format_plural(inputs.network.num_tensors(), "tensor") +
                              (inputs.network.num_trained() < inputs.network.num_parameters()
                                   ? ", " + format_count(inputs.network.num_trained()) + " trained"
                                   : std::string()));
  table.row("a sample", format_rounded(inputs.network.forward_flops() / 1e9) + " GFLOP forward, " +
                            format_rounded(inputs.network.training_flops() / 1e9) + " in training");
  print_calibration(inputs, calibration, table);
  if (inputs.tradeoff) {
    const BatchTradeoff& tradeoff = *inputs.tradeoff;
    table.row(
        "E_min",
        format_count(std::llround(tradeoff.e_min)) + " samples" +
            (tradeoff.reference_batch > 0.0
                 ? ", so that the training's " + format_count(std::llround(inputs.total_samples)) +
                       " are right at batch " +
                       format_count(std::llround(tradeoff.reference_batch)) + " (or give --e-min)"
                 : std::string()));
  }
  for (const auto& row : rows) print_row(inputs, row, table);
  table.print(std::cout);
}

int run_plan(const PlanArguments& arguments) {
  Calibration calibration;
  for (const auto& name : arguments.calibration) read_calibration(name, calibration);
  const PlanInputs inputs = inputs_of(arguments, calibration);
  const auto rows = plan_rows(inputs, arguments.ranks);
  if (arguments.format == OutputFormat::kJson) {
    std::cout << plan_to_json(inputs, rows).dump(2) << '\n';
  } else {
    print_plan(inputs, calibration, rows);
  }
  return static_cast<int>(ExitCode::kDone);
}

// CLI11's ranges let NaN through.
std::string require_number(const std::string& text) {
  return std::isnan(std::strtod(text.c_str(), nullptr)) ? "'" + text + "' is not a number"
                                                        : std::string();
}

void add_machine_options(CLI::App& verb, PlanArguments& arguments) {
  verb.add_option("--gpu-type", arguments.gpu_type, "a100, h100, h200, b200, gb200 or cpu")
      ->capture_default_str();
  verb.add_option("--ranks", arguments.ranks, "Numbers of ranks (GPUs)")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  verb.add_option("--network", arguments.network,
                  "infiniband-ndr, -hdr or -xdr, efa-400g, ethernet-400g, -100g, -25g or -10g");
  verb.add_option("--gpus-per-node", arguments.gpus_per_node, "GPUs behind one switch")
      ->check(CLI::Range(1, 1 << 20));
  verb.add_option(
          "--calibrate", arguments.calibration,
          "CSV of measured steps or all-reduces (docs/plan.md), or bench's JSON; repeatable")
      ->type_name("FILE")
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  verb.add_option("--price", arguments.price, "US dollars a GPU and hour")
      ->check(CLI::NonNegativeNumber)
      ->check(require_number);
}

void add_training_options(CLI::App& verb, PlanArguments& arguments) {
  verb.add_option("--samples", arguments.samples, "Samples of the whole training")
      ->check(CLI::PositiveNumber)
      ->check(require_number);
  auto* noise_scale = verb.add_option("--noise-scale", arguments.noise_scale,
                                      "Critical batch (study fit): also find the best batch")
                          ->check(CLI::PositiveNumber)
                          ->check(require_number);
  verb.add_option("--e-min", arguments.e_min, "E_min of study fit, in samples")
      ->check(CLI::PositiveNumber)
      ->check(require_number)
      ->needs(noise_scale);
  verb.add_option("--size", arguments.size, "Latent size, where the data is not here")
      ->delimiter(',')
      ->expected(1, 2)
      ->type_name("HEIGHT,WIDTH");
  verb.add_option("--text-tokens", arguments.text_tokens, "Text tokens of a sample")
      ->check(CLI::Range(0, 1 << 20));
}
}  // namespace

void add_plan_verb(CLI::App& app, std::function<int()>& action) {
  auto arguments = std::make_shared<PlanArguments>();
  auto* verb =
      app.add_subcommand("plan", "Predict step time, throughput, efficiency and cost of a cluster");
  add_config_arguments(*verb, arguments->config);
  add_machine_options(*verb, *arguments);
  add_training_options(*verb, *arguments);
  verb->add_flag_callback(
      "--json", [arguments] { arguments->format = OutputFormat::kJson; }, "JSON, and nothing else");
  verb->footer(
      "Example:\n  trireme plan configs/domain_sd.toml --gpu-type h100 --ranks 1,8,64,512");
  verb->callback([arguments, &action] { action = [arguments] { return run_plan(*arguments); }; });
}
}  // namespace trireme
