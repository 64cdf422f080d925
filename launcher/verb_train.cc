#include <chrono>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <CLI/CLI.hpp>

#include "core/files.h"
#include "core/log.h"
#include "core/sha256.h"
#include "core/stop_signal.h"
#include "data/latent_check.h"
#include "dist/announced.h"
#include "dist/line_agreement.h"
#include "dist/mpi_environment.h"
#include "launcher/command_line.h"
#include "launcher/config_file.h"
#include "launcher/config_schema.h"
#include "launcher/provenance.h"
#include "launcher/rank_placement.h"
#include "launcher/run_report.h"
#include "launcher/topology.h"
#include "launcher/verbs.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/model_agreement.h"
#include "trainer/run_directory.h"
#include "trainer/trainer.h"

namespace trireme {
namespace {
struct TrainArguments {
  ConfigArguments config;
  RunDirectory::Start start = RunDirectory::Start::kResume;
  log::Console console = log::Console::kNormal;
};

std::string run_dir_of(const Config& config) {
  return config.run.dir.empty() ? "runs/" + config.run.name : config.run.dir;
}

bool depends_on_length(const LrScheduleOptions& schedule) {
  const bool ends =
      schedule.name != LrScheduleName::kConstant && schedule.name != LrScheduleName::kInverseSqrt;
  return ends || schedule.warmup_fraction > 0;
}

// Rank 0: whether the folder holds this run, and from which checkpoint it goes on. Stores the
// resolved configuration.
std::optional<std::filesystem::path> open_run(const RunDirectory& run, const Config& config) {
  std::optional<std::filesystem::path> resume;
  if (run.holds_run()) {
    const Config then = load_config(run.config_file()).config;
    const ConfigDifference difference = compare_for_resume(config, then);
    if (!difference.keys.empty()) {
      std::string keys;
      for (const auto& key : difference.keys) keys += (keys.empty() ? "" : "; ") + key;
      throw UsageError("the folder " + run.path().string() +
                       " holds a run of another configuration: " + keys +
                       ". Set these back, choose another --run-dir, or start over with --fresh.");
    }
    resume = newest_checkpoint(run.checkpoints());
    if (!difference.growth.empty()) {
      log::info(difference.growth + ": " +
                (depends_on_length(config.lr_schedule)
                     ? "the learning-rate schedule is stretched over the new length, so the rate "
                       "at the next step differs from where it stood"
                     : "the learning-rate schedule does not depend on the length"));
    }
  }
  write_text_file_atomically(run.config_file(), write_config(config));
  return resume;
}

// What TensorBoard's HParams page compares runs by: numbers as numbers, lists as TOML text.
std::vector<HyperParameter> hyper_parameters_of(const Config& config) {
  std::vector<HyperParameter> parameters;
  for (const ConfigKey& key : config_schema()) {
    const ConfigValue value = key.get(config);
    HyperParameter parameter{std::string(key.name), toml_text(value)};
    if (const auto* flag = std::get_if<bool>(&value)) parameter.second = *flag;
    if (const auto* number = std::get_if<double>(&value)) parameter.second = *number;
    if (const auto* text = std::get_if<std::string>(&value)) parameter.second = *text;
    if (const auto* count = std::get_if<int64_t>(&value))
      parameter.second = static_cast<double>(*count);
    parameters.push_back(std::move(parameter));
  }
  return parameters;
}

// With what the model's scheduler config said of [objective] and [noise].
void agree_on_configuration(MpiEnvironment& mpi, const Config& config) {
  std::string lines;
  for (const ConfigKey& key : config_schema()) {
    lines += std::string(key.name) + " = " + toml_text(key.get(config)) + "\n";
  }
  agree_on_lines(
      mpi, lines, "configurations",
      "Give all ranks the same file and --set; [objective] and [noise] follow "
      "scheduler/scheduler_config.json beside model.weights, of which that host may have "
      "another copy.");
}

// What is wrong with a small dataset is known before the first step; of a large one training itself
// finds what this passes over. Each rank reads its share.
void check_some_latents(const MpiEnvironment& mpi, const Session& session) {
  constexpr int64_t kMost = 2048;
  const LatentCheckShare share{.part = mpi.rank(), .num_parts = mpi.world_size()};
  for (const auto* dataset :
       {session.dataset.get(), session.validation_files.get(), session.prior.get()}) {
    if (dataset != nullptr) (void)check_latents(*dataset, kMost, share);
  }
}

// Rank 0 notes how a start ended; a code that some ranks only have ends the process elsewhere. The
// other ranks wait for the report where they end together.
void note_end(const RunDirectory* run, ExitCode code) noexcept {
  if (run == nullptr) return;
  try {
    append_provenance(run->path(), end_record(code));
  } catch (const std::exception& error) {
    log::warn(error.what());
  }
  const bool is_told_by_curves =
      code == ExitCode::kDone || code == ExitCode::kStopped || code == ExitCode::kDiverged;
  if (is_told_by_curves) write_run_report(run->path());
}

ExitCode train(MpiEnvironment& mpi, const TrainArguments& arguments, StopSignal& stop_signal) {
  const auto start = std::chrono::steady_clock::now();
  log::configure(mpi.rank(), mpi.world_size(), arguments.console);
  LoadedConfig loaded;
  ResolvedObjective resolved;
  mpi.run_on_all_ranks([&] {
    loaded = load(arguments.config);
    resolved = resolve_objective(loaded.config, loaded.keys_set);
  });
  Config config = loaded.config;
  config.objective = resolved.objective;
  config.noise = resolved.noise;
  agree_on_configuration(mpi, config);
  for (const auto& warning : resolved.warnings) {
    if (mpi.rank() == 0) log::warn(warning);
  }

  stop_signal.watch_peers(peers_on_this_host(mpi));
  if (announced_processes().num_processes > 0) stop_signal.watch_starter();
  const std::string device = choose_device(mpi);
  const Machine machine = detect_machine();
  const RankPlacement placement = place_this_rank(mpi, machine);
  confine_rank(placement);
  const std::string run_dir = run_dir_of(config);
  std::optional<Session> session;
  mpi.run_on_all_ranks([&] {
    session = open_session(config, device);
    (void)plan_run(config, mpi.world_size(), session->num_training());
    check_some_latents(mpi, *session);
  });
  agree_on_session(mpi, *session);
  // Last: --fresh removes an earlier run only once all else is known to be right.
  std::unique_ptr<RunDirectory> run;  // Rank 0; outlives the trainer.
  std::string resume;
  mpi.run_on_all_ranks([&] {
    if (mpi.rank() != 0) return;
    run = std::make_unique<RunDirectory>(run_dir, arguments.start);
    resume = open_run(*run, config).value_or("").string();
  });
  mpi.broadcast_string(resume);
  log::add_file(std::filesystem::path(run_dir) / "log.txt");
  const std::string record =
      start_record(mpi, {.command = command_of_this_process(),
                         .device = device,
                         .placement = placement,
                         .machine = machine,
                         .resumed_from = std::filesystem::path(resume).filename().string(),
                         .config_sha256 = sha256_of_text(write_config(config))});
  mpi.run_on_all_ranks([&] {
    if (run) append_provenance(run->path(), record);
  });

  Trainer trainer(
      mpi, std::move(*session),
      {.run_dir = run_dir,
       .config_toml = write_config(config),
       .resume = resume.empty() ? std::nullopt : std::optional<std::filesystem::path>(resume),
       .hyper_parameters = hyper_parameters_of(config),
       .version = TRIREME_VERSION,
       .stop_signal = &stop_signal,
       .helper_cpus = placement.helpers,
       .start = start});
  try {
    const ExitCode code = trainer.run();
    note_end(run.get(), code);
    return code;
  } catch (const Error& error) {
    note_end(run.get(), error.code());
    throw;
  }
}
}  // namespace

void add_train_verb(CLI::App& app, std::function<int()>& action) {
  auto arguments = std::make_shared<TrainArguments>();
  auto* verb = app.add_subcommand(
      "train", "Train: one rank, or each of the ranks that mpirun or srun started");
  add_config_arguments(*verb, arguments->config);
  verb->add_flag_callback(
      "--fresh", [arguments] { arguments->start = RunDirectory::Start::kFresh; },
      "Start over: remove what an earlier run left in the run directory");
  verb->add_flag_callback(
      "--quiet", [arguments] { arguments->console = log::Console::kQuiet; },
      "Print warnings and errors only; log.txt gets everything");
  verb->footer("Example:\n  mpirun -np 4 trireme train configs/demo.toml --set optim.lr=2e-4");
  verb->callback([arguments, &action] {
    action = [arguments] {
      StopSignal
          stop_signal;  // Before MPI starts: a signal then stops the run in an orderly way too.
      // MPI ends a rank whose mpirun is gone, by PMIx after a second: here as long as a checkpoint
      // may take, and less than the next start waits for the run directory.
      setenv("PMIX_MCA_pmix_event_caching_window", "10", /*overwrite=*/0);
      return run_reporting_as_rank([&](MpiEnvironment& mpi) {
        return static_cast<int>(train(mpi, *arguments, stop_signal));
      });
    };
  });
}
}  // namespace trireme
