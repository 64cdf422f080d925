#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/log.h"
#include "dist/mpi_environment.h"
#include "launcher/checkpoint_arguments.h"
#include "launcher/report_table.h"
#include "launcher/verbs.h"
#include "trainer/evaluate/validation.h"
#include "trainer/run_directory.h"
#include "trainer/session.h"

namespace trireme {
namespace {
enum class Output { kTable, kJson };

struct EvalArguments {
  CheckpointArguments checkpoint;
  Output output = Output::kTable;
};

void require_validation(const Session& session) {
  if (session.num_validation() > 0) return;
  throw UsageError(
      "there is nothing to evaluate: the configuration has no validation data. Give some with "
      "--set "
      "'data.validation=[\"val.h5\"]'.");
}

void print_json(int64_t step, const ValidationResult& result,
                const std::optional<ValidationResult>& average) {
  JsonLine line;
  line.add("kind", std::string("eval")).add("step", step).add("val_loss", result.loss);
  if (average) line.add("val_loss_ema", average->loss);
  for (size_t band = 0; band < result.band_losses.size(); ++band) {
    line.add(("val_loss_band_" + std::to_string(band)).c_str(), result.band_losses[band]);
  }
  line.add("val_samples", result.num_samples);
  std::cout << line.text() << std::endl;
}

void add_rows(ReportTable& table, const std::string& heading, const ValidationResult& result) {
  table.heading(heading);
  table.row("validation loss", format_number(result.loss));
  for (size_t band = 0; band < result.band_losses.size(); ++band) {
    table.row("timestep band " + std::to_string(band + 1) + " of " +
                  std::to_string(result.band_losses.size()),
              format_number(result.band_losses[band]));
  }
}

void print_table(const OpenedCheckpoint& checkpoint, const ValidationResult& result,
                 const std::optional<ValidationResult>& average) {
  ReportTable table;
  table.heading(checkpoint.folder.string());
  table.row("step", format_count(checkpoint.state.step));
  table.row("validation",
            format_plural(result.num_samples, "sample") + " at " +
                format_plural(static_cast<int64_t>(result.band_losses.size()), "timestep"));
  add_rows(table, "trained weights", result);
  if (average) add_rows(table, "averaged weights (EMA)", *average);
  table.print(std::cout);
}

int run_eval(MpiEnvironment& mpi, const EvalArguments& arguments) {
  log::configure(mpi.rank(), mpi.world_size());
  const OpenedCheckpoint checkpoint = open_checkpoint(mpi, arguments.checkpoint);
  const std::string device = choose_device(mpi);
  std::optional<Session> session;
  mpi.run_on_all_ranks([&] {
    session =
        open_session(checkpoint.config, device, checkpoint.weights(CheckpointWeights::kTrained));
    require_validation(*session);
  });
  const ValidationResult result = evaluate_validation(mpi, *session);
  std::optional<ValidationResult> average;
  if (checkpoint.has_average()) {
    mpi.run_on_all_ranks([&] {
      session->model =
          open_model(checkpoint.config, checkpoint.weights(CheckpointWeights::kAveraged));
      session->model->to_device(device);
    });
    average = evaluate_validation(mpi, *session);
  }
  if (mpi.rank() == 0 && arguments.output == Output::kJson) {
    print_json(checkpoint.state.step, result, average);
  } else if (mpi.rank() == 0) {
    print_table(checkpoint, result, average);
  }
  return static_cast<int>(ExitCode::kDone);
}
}  // namespace

void add_eval_verb(CLI::App& app, std::function<int()>& action) {
  auto arguments = std::make_shared<EvalArguments>();
  auto* verb =
      app.add_subcommand("eval", "Evaluate a checkpoint on its validation data, on all ranks");
  add_checkpoint_arguments(*verb, arguments->checkpoint);
  verb->add_flag_callback(
      "--json", [arguments] { arguments->output = Output::kJson; },
      "Print one JSON object and nothing else");
  verb->footer(
      "Example:\n  mpirun -np 4 trireme eval runs/emoji/checkpoints/latest --set "
      "'data.validation=[\"val.h5\"]'");
  verb->callback([arguments, &action] {
    action = [arguments] {
      return run_as_rank([&](MpiEnvironment& mpi) { return run_eval(mpi, *arguments); });
    };
  });
}
}  // namespace trireme
