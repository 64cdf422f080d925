#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/log.h"
#include "dist/mpi_environment.h"
#include "launcher/checkpoint_arguments.h"
#include "launcher/command_line.h"
#include "launcher/config_schema.h"
#include "launcher/report_table.h"
#include "launcher/verbs.h"
#include "trainer/evaluate/eval_metrics.h"
#include "trainer/evaluate/scores.h"
#include "trainer/run_directory.h"
#include "trainer/session.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

struct EvalArguments {
  CheckpointArguments checkpoint;
  OutputFormat output = OutputFormat::kTable;
  std::vector<std::string> metrics;
  std::string inception;
  std::string inception_resize;
  std::string clip;
  std::string reference;
  std::optional<int64_t> count;
};

struct Evaluation {
  EvalMetrics losses;  // Empty without validation data.
  std::vector<Score> scores;
};

// The options as overrides, so that they pass the same checks.
CheckpointArguments with_options(const EvalArguments& arguments) {
  CheckpointArguments result = arguments.checkpoint;
  const auto add = [&](const char* key, const std::string& value) {
    if (!value.empty()) result.set.push_back(std::string(key) + "=" + toml_text(value));
  };
  if (!arguments.metrics.empty()) {
    result.set.push_back("scores.metrics=" + toml_text(arguments.metrics));
  }
  add("scores.inception", arguments.inception);
  add("scores.inception_resize", arguments.inception_resize);
  add("scores.clip", arguments.clip);
  add("scores.reference", arguments.reference);
  if (arguments.count) result.set.push_back("scores.count=" + std::to_string(*arguments.count));
  return result;
}

void require_something(const Session& session) {
  if (session.num_validation() > 0 || !session.config.scores.metrics.empty()) return;
  throw UsageError(
      "there is nothing to evaluate: the configuration has no validation data and no "
      "scores.metrics. Give some with --set 'data.validation=[\"val.h5\"]', or a --metric.");
}

void print_json(std::optional<int64_t> step, const Evaluation& evaluation) {
  JsonLine line;
  line.add("kind", std::string("eval"));
  if (step) line.add("step", *step);
  for (const auto& [name, value] : evaluation.losses) line.add(name.c_str(), value);
  for (const auto& score : evaluation.scores) line.add(score.name.c_str(), score.value);
  std::cout << line.text() << '\n' << std::flush;
}

void add_rows(ReportTable& table, const std::string& heading, const EvalMetrics& metrics,
              const std::string& suffix, int64_t num_bands) {
  const auto row = [&](const std::string& label, const std::string& name) {
    if (const auto value = find_metric(metrics, name)) table.row(label, format_number(*value));
  };
  table.heading(heading);
  row("validation loss", "val_loss" + suffix);
  for (int64_t band = 0; band < num_bands; ++band) {
    row("timestep band " + std::to_string(band + 1) + " of " + std::to_string(num_bands),
        "val_loss" + suffix + "_band_" + std::to_string(band));
  }
  row("training samples, same noise", "train_loss_fixed" + suffix);
  row("training minus validation", "overfit_gap" + suffix);
}

void add_scores(ReportTable& table, const std::string& heading, const std::vector<Score>& scores) {
  if (scores.empty()) return;
  table.heading(heading);
  for (const auto& score : scores) table.row(score.name, format_number(score.value));
}

void print_table(const OpenedCheckpoint& checkpoint, const Evaluation& evaluation) {
  ReportTable table;
  table.heading(checkpoint.folder.string());
  table.row("step", format_count(checkpoint.state.step));
  const EvalMetrics& losses = evaluation.losses;
  const int64_t num_bands = checkpoint.config.eval.timesteps;
  if (const auto count = find_metric(losses, "val_samples")) {
    table.row("validation", format_plural(static_cast<int64_t>(*count), "sample") + " at " +
                                format_plural(num_bands, "timestep"));
    add_rows(table, "trained weights", losses, "", num_bands);
  }
  if (find_metric(losses, "val_loss_ema")) {
    add_rows(table, "averaged weights (EMA)", losses, "_ema", num_bands);
  }
  add_scores(table,
             "scores of " + format_plural(checkpoint.config.scores.count, "generated picture") +
                 (checkpoint.has_average() ? " (EMA)" : ""),
             evaluation.scores);
  table.print(std::cout);
}

// In the training loop's order: trained weights, then averaged ones, which are also scored.
Evaluation evaluate(MpiEnvironment& mpi, const OpenedCheckpoint& checkpoint, Session& session) {
  Evaluation evaluation;
  const auto load_average = [&] {
    mpi.run_on_all_ranks([&] {
      session.model =
          open_model(checkpoint.config, checkpoint.weights(CheckpointWeights::kAveraged));
      session.model->to_device(session.device);
    });
  };
  std::function<void(const std::function<void()>&)> with_average;
  if (checkpoint.has_average()) {
    with_average = [&](const std::function<void()>& measure) {
      load_average();
      measure();
    };
  }
  if (session.num_validation() > 0) {
    evaluation.losses = validation_metrics(mpi, session, with_average);
  } else if (with_average) {
    load_average();
  }
  if (session.config.scores.metrics.empty()) return evaluation;
  std::optional<Scorer> scorer;
  mpi.run_on_all_ranks([&] { scorer.emplace(session); });
  const auto& dir = session.config.run.dir;
  const fs::path run_dir = dir.empty() ? fs::path("runs") / session.config.run.name : fs::path(dir);
  evaluation.scores = scorer->evaluate(mpi, session, score_cache(session.config, run_dir));
  return evaluation;
}

bool is_folder_of_pictures(const fs::path& path) {
  std::error_code error;
  if (fs::exists(path / "manifest.json", error) || fs::exists(path / "checkpoints", error)) {
    return false;
  }
  for (const auto& entry : fs::directory_iterator(path, error)) {
    const auto kind = entry.path().extension();
    if (kind == ".png" || kind == ".jpg" || kind == ".jpeg") return true;
  }
  return false;
}

ScoresOptions folder_options(const EvalArguments& arguments) {
  ScoresOptions options;
  options.metrics = arguments.metrics.empty() ? std::vector<std::string>{"fid"} : arguments.metrics;
  options.inception = arguments.inception;
  if (arguments.reference.empty() || arguments.inception.empty() ||
      !arguments.checkpoint.set.empty()) {
    throw UsageError(arguments.checkpoint.checkpoint +
                     " is a folder of pictures: it is scored with --reference DIR and --inception "
                     "FILE, without --set.");
  }
  for (const auto& name : options.metrics) {
    if (name == "fid" || name == "kid") continue;
    throw UsageError("--metric " + name + " is not for a folder of pictures: use fid or kid.");
  }
  if (arguments.inception_resize == "torch_fidelity") {
    options.inception_resize = InceptionResize::kTorchFidelity;
  } else if (!arguments.inception_resize.empty() && arguments.inception_resize != "pytorch_fid") {
    throw UsageError("--inception-resize must be pytorch_fid or torch_fidelity.");
  }
  return options;
}

void evaluate_folder(MpiEnvironment& mpi, const EvalArguments& arguments) {
  ScoresOptions options;
  mpi.run_on_all_ranks([&] { options = folder_options(arguments); });
  const std::string device = choose_device(mpi);
  const auto scores =
      score_folders(mpi, options, arguments.checkpoint.checkpoint, arguments.reference, device);
  if (mpi.rank() != 0) return;
  if (arguments.output == OutputFormat::kJson) {
    print_json(std::nullopt, {.losses = {}, .scores = scores});
    return;
  }
  ReportTable table;
  add_scores(table, arguments.checkpoint.checkpoint + " against " + arguments.reference, scores);
  table.print(std::cout);
}

int run_eval(MpiEnvironment& mpi, const EvalArguments& arguments) {
  log::configure(mpi.rank(), mpi.world_size());
  if (is_folder_of_pictures(arguments.checkpoint.checkpoint)) {
    evaluate_folder(mpi, arguments);
    return static_cast<int>(ExitCode::kDone);
  }
  const OpenedCheckpoint checkpoint = open_checkpoint(mpi, with_options(arguments));
  const std::string device = choose_device(mpi);
  std::optional<Session> session;
  mpi.run_on_all_ranks([&] {
    session =
        open_session(checkpoint.config, device, checkpoint.weights(CheckpointWeights::kTrained));
    require_something(*session);
  });
  const Evaluation evaluation = evaluate(mpi, checkpoint, *session);
  if (mpi.rank() == 0 && arguments.output == OutputFormat::kJson) {
    print_json(checkpoint.state.step, evaluation);
  } else if (mpi.rank() == 0) {
    print_table(checkpoint, evaluation);
  }
  return static_cast<int>(ExitCode::kDone);
}

void add_score_options(CLI::App& verb, EvalArguments& arguments) {
  verb.add_option("--metric", arguments.metrics,
                  "fid, kid, clip_score or latent_frechet; repeatable. Default: scores.metrics")
      ->type_name("NAME")
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  verb.add_option("--inception", arguments.inception, "Inception-v3's weights, for fid and kid")
      ->type_name("FILE");
  verb.add_option("--inception-resize", arguments.inception_resize,
                  "As which package resizes: pytorch_fid or torch_fidelity")
      ->type_name("NAME");
  verb.add_option("--clip", arguments.clip, "CLIP's encoders, for clip_score")->type_name("DIR");
  verb.add_option("--reference", arguments.reference,
                  "What to compare with: validation, train, or a folder of pictures");
  verb.add_option("--count", arguments.count, "Pictures to generate for scores");
}
}  // namespace

void add_eval_verb(CLI::App& app, std::function<int()>& action) {
  auto arguments = std::make_shared<EvalArguments>();
  auto* verb = app.add_subcommand(
      "eval", "Evaluate a checkpoint, or score a folder of pictures, on all ranks");
  add_checkpoint_arguments(*verb, arguments->checkpoint);
  add_score_options(*verb, *arguments);
  verb->add_flag_callback(
      "--json", [arguments] { arguments->output = OutputFormat::kJson; },
      "Print one JSON object and nothing else");
  verb->footer(
      "Examples:\n  mpirun -np 4 trireme eval runs/emoji/checkpoints/latest --metric fid "
      "--inception inception.safetensors --count 5000\n"
      "  trireme eval generated/ --reference real/ --inception inception.safetensors");
  verb->callback([arguments, &action] {
    action = [arguments] {
      return run_reporting_as_rank([&](MpiEnvironment& mpi) { return run_eval(mpi, *arguments); });
    };
  });
}
}  // namespace trireme
