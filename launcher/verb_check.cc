#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <unistd.h>

#include "core/error.h"
#include "data/latent_check.h"
#include "launcher/check_advice.h"
#include "launcher/check_cost.h"
#include "launcher/command_line.h"
#include "launcher/report_table.h"
#include "launcher/verbs.h"
#include "study/fit_report.h"
#include "trainer/freeze.h"
#include "trainer/run_plan.h"
#include "trainer/session.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

// Latents are read and checked up to that many; beyond it, evenly spread ones.
constexpr int64_t kNumLatentsChecked = 20000;

struct CheckArguments {
  ConfigArguments config;
  int ranks = 1;
};

// That a run could be started in the run directory, as far as can be said without making it.
void check_run_dir(const Config& config) {
  const fs::path wanted = config.run.dir.empty() ? "runs/" + config.run.name : config.run.dir;
  fs::path folder = fs::absolute(wanted);
  std::error_code error;
  while (!fs::exists(fs::symlink_status(folder, error)) && folder.has_relative_path()) {
    folder = folder.parent_path();
  }
  // Permission bits do not tell all (root, read-only mounts): try, and leave nothing behind.
  std::string trial = (folder / ".trireme-check-XXXXXX").string();
  if (::mkdtemp(trial.data()) == nullptr) {
    const std::string why = std::strerror(errno);
    throw UsageError("the run directory " + wanted.string() + " cannot be written: " +
                     folder.string() + ": " + why + ". Choose another with run.dir or --run-dir.");
  }
  ::rmdir(trial.c_str());
  if (!fs::exists(wanted / "config.toml", error)) return;
  const Config then = load_config(wanted / "config.toml").config;
  const ConfigDifference difference = compare_for_resume(config, then);
  if (difference.keys.empty()) return;
  std::string keys;
  for (const auto& key : difference.keys) keys += (keys.empty() ? "" : "; ") + key;
  throw UsageError("the folder " + wanted.string() +
                   " holds a run of another configuration: " + keys +
                   ". Set these back, choose another --run-dir, or start over with --fresh.");
}

struct ParameterCount {
  int64_t all = 0;
  int64_t trained = 0;
};

ParameterCount count_parameters(const DiffusionModel& model, const FreezeOptions& freeze) {
  const auto parameters = model.named_parameters();
  std::vector<std::string> names;
  for (const auto& [name, tensor] : parameters) names.push_back(name);
  const std::vector<bool> is_trained = select_trained(names, freeze);
  ParameterCount count{.all = model.num_elements()};
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (is_trained[i]) count.trained += parameters[i].second.numel();
  }
  return count;
}

// Tensors of the trained parameters' size that the optimizer keeps.
double num_optimizer_states(const OptimOptions& optim) {
  switch (optim.name) {
    case OptimizerName::kSgd:
    case OptimizerName::kLars:
      return optim.momentum != 0.0 ? 1.0 : 0.0;
    case OptimizerName::kLion:
      return 1.0;
    case OptimizerName::kAdafactor:
      return 0.0;  // Rows and columns only.
    default:
      return 2.0;
  }
}

// Copies of the gradients, besides the gradients, that their reduction needs: one that slices are
// exchanged through (with 16 bits two of half the size), and a sum for each level of a rank's own
// part of the tree.
double num_reduction_copies(const Config& config, const RunPlan& plan, int ranks) {
  const bool is_tree = config.parallel.shards > 0;
  const bool exchanges =
      ranks > 1 && (is_tree || config.parallel.reduce_precision != Precision::kFp32);
  return (exchanges ? 1.0 : 0.0) +
         (is_tree ? std::log2(static_cast<double>(plan.pieces_per_rank)) : 0.0);
}

void report_cost(const Session& session, const RunFacts& facts, int ranks, ReportTable& table) {
  const Config& config = session.config;
  const ParameterCount parameters = count_parameters(*session.model, config.freeze);
  const SampleCost cost = measure_sample_cost(session);
  const auto bytes = [](double count) { return format_bytes(static_cast<uint64_t>(count)); };
  const auto trained = 4.0 * static_cast<double>(parameters.trained);
  const double states =
      num_optimizer_states(config.optim) * trained / (config.parallel.shard_optimizer ? ranks : 1);
  const double ema =
      config.ema.decay > 0.0 ? trained / (config.parallel.shard_optimizer ? ranks : 1) : 0.0;
  const double reduction = num_reduction_copies(config, facts.plan, ranks) * trained;
  const auto weights = 4.0 * static_cast<double>(parameters.all);
  const double activations = cost.activation_bytes * static_cast<double>(facts.plan.micro);
  table.heading("model and cost");
  table.row("parameters",
            format_count(parameters.all) + ", trained " + format_count(parameters.trained));
  table.row("memory of a rank",
            "about " + bytes(weights + trained + reduction + states + ema + activations) +
                ": weights " + bytes(weights) + ", gradients " + bytes(trained) +
                (reduction > 0.0 ? ", their reduction " + bytes(reduction) : "") + ", optimizer " +
                bytes(states) + (ema > 0.0 ? ", EMA " + bytes(ema) : "") +
                ", activations of a micro-batch " + bytes(activations));
  const double pass_seconds = cost.forward_seconds / ranks;
  const double training = pass_seconds * training_passes(config, facts);
  const double evaluation = pass_seconds * static_cast<double>(evaluation_passes(config, facts));
  const int64_t evaluations = num_evaluations(config, facts.plan.steps);
  const double evaluating = static_cast<double>(evaluations) * evaluation;
  table.row("time", "about " + format_duration(training + evaluating) + " on " +
                        format_plural(ranks, "rank") +
                        " that compute like this process: training " + format_duration(training) +
                        ", " + format_plural(evaluations, "evaluation") + " of " +
                        format_duration(evaluation) + ", without samples and scores (" +
                        format_rounded(cost.forward_seconds) + " s a forward pass of one sample)");
}

std::string warmup_text(const RunPlan& plan) {
  return format_plural(plan.lr_schedule.warmup_steps, "step") + ", " +
         format_rounded(100.0 * static_cast<double>(plan.lr_schedule.warmup_steps) /
                        static_cast<double>(plan.steps)) +
         " % of the run";
}

void report_schedule(const Config& config, const RunFacts& facts, ReportTable& table) {
  const RunPlan& plan = facts.plan;
  table.heading("batch and steps");
  for (const auto& phase : plan.global_batch.phases()) {
    if (phase.first_step > plan.steps) continue;
    table.row(
        phase.first_step == 1 ? "effective batch" : "from step " + std::to_string(phase.first_step),
        format_count(phase.global_batch) + " = " + format_plural(plan.num_pieces, "piece") + " x " +
            std::to_string(plan.micros_per_piece(phase.first_step)) + " x micro-batch " +
            std::to_string(plan.micro));
  }
  table.row("steps", format_count(plan.steps));
  table.row("steps per epoch", format_rounded(static_cast<double>(facts.num_training) /
                                              static_cast<double>(plan.last_batch())));
  table.row("epochs", format_rounded(facts.epochs()));
  table.row("samples seen", format_count(facts.samples_drawn()));
  table.heading("learning rate");
  for (const auto& phase : plan.global_batch.phases()) {
    if (phase.first_step > plan.steps) continue;
    const ScaledOptim scaled = scale_learning_rate(config.optim, phase.global_batch);
    table.row(
        phase.first_step == 1 ? "after scaling" : "from step " + std::to_string(phase.first_step),
        config.optim.lr_base_batch > 0 ? format_number(scaled.lr) + " (" + scaled.rule + ")"
                                       : scaled.rule);
  }
  table.row("warm-up", warmup_text(plan));
  const double shrinkage = config.optim.weight_decay * total_learning_rates(config.optim, plan).sum;
  table.row("decay x rate x steps", format_rounded(shrinkage) + ", alone shrinks a weight by " +
                                        format_rounded(-100.0 * std::expm1(-shrinkage)) + " %");
  if (config.ema.decay > 0.0) {
    table.row("EMA half-life", format_rounded(ema_half_life(config.ema.decay)) + " steps");
  }
}

RunFacts facts_of(const Session& session, int ranks) {
  RunFacts facts{.plan = plan_run(session.config, ranks, session.num_training()),
                 .num_training = session.num_training(),
                 .num_distinct = 0,
                 .num_validation = session.num_validation()};
  for (size_t c = 0; c < session.dataset->classes().size(); ++c) {
    facts.num_distinct += session.split->num_training(c);
  }
  return facts;
}

int run_check(const CheckArguments& arguments) {
  const LoadedConfig loaded = load(arguments.config);
  Config config = loaded.config;
  const ResolvedObjective resolved = resolve_objective(config, loaded.keys_set);
  config.objective = resolved.objective;
  config.noise = resolved.noise;
  check_run_dir(config);
  const Session session = open_session(config, "cpu");
  const RunFacts facts = facts_of(session, arguments.ranks);
  const int64_t num_checked = check_latents(*session.dataset, kNumLatentsChecked);
  if (session.validation_files) (void)check_latents(*session.validation_files, kNumLatentsChecked);
  if (session.prior) (void)check_latents(*session.prior, kNumLatentsChecked);

  ReportTable table;
  table.heading("data");
  table.row("training", format_plural(facts.num_distinct, "sample") +
                            (facts.num_training != facts.num_distinct
                                 ? ", drawn " + format_count(facts.num_training) + " times an epoch"
                                 : ""));
  table.row("validation", format_plural(facts.num_validation, "sample"));
  if (session.prior) {
    table.row("prior", format_plural(session.prior->num_samples(), "sample") + ", " +
                           std::to_string(facts.plan.last_batch()) + " beside each batch, loss x " +
                           format_number(config.data.prior_weight));
  }
  table.row("checked", format_count(num_checked) + " latents read" +
                           (num_checked < session.dataset->num_samples()
                                ? " (all of them: trireme inspect FILE --verify)"
                                : ""));
  report_schedule(config, facts, table);
  report_cost(session, facts, arguments.ranks, table);
  const auto advice = advise(config, facts);
  table.heading(resolved.warnings.empty() && advice.empty() ? "no warnings" : "warnings");
  for (const auto& warning : resolved.warnings) table.note("- " + warning);
  for (const auto& warning : advice) table.note("- " + warning);
  table.print(std::cout);
  return static_cast<int>(ExitCode::kDone);
}
}  // namespace

void add_check_verb(CLI::App& app, std::function<int()>& action) {
  auto arguments = std::make_shared<CheckArguments>();
  auto* verb = app.add_subcommand(
      "check", "Validate configuration, data and weights without training, and advise");
  add_config_arguments(*verb, arguments->config);
  verb->add_option("-n,--ranks", arguments->ranks, "The number of ranks that the run will have")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  verb->footer("Example:\n  trireme check configs/demo.toml -n 2 --set optim.lr=2e-4");
  verb->callback([arguments, &action] { action = [arguments] { return run_check(*arguments); }; });
}
}  // namespace trireme
