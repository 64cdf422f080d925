#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <set>
#include <string>
#include <system_error>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "core/stop_signal.h"
#include "launcher/config_file.h"
#include "launcher/slurm_script.h"
#include "launcher/study_check.h"
#include "launcher/study_file.h"
#include "launcher/study_prediction.h"
#include "launcher/study_runner.h"
#include "launcher/study_verb.h"
#include "study/fit_report.h"
#include "study/study_report.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

enum class Action { kRun, kOneRun, kSlurm, kReport };

struct StudyArguments {
  std::string file;
  std::string one_run;
  Action action = Action::kRun;
};

std::string own_path() {
  std::error_code error;
  const auto path = fs::read_symlink("/proc/self/exe", error);
  if (error) throw InternalError("cannot find this program's own path: " + error.message());
  return path.string();
}

bool is_done(const StudyRun& record) {
  return record.state == StudyRun::State::kFinished || record.state == StudyRun::State::kDiverged;
}

// Adds the learning rates that the results so far ask for. Returns whether there are any new ones.
bool extend(const StudyOptions& options, const StudyRunner& runner, std::vector<RunSpec>& runs) {
  const auto records = runner.records(runs);
  if (!std::ranges::all_of(records, is_done)) return false;
  std::set<std::string> names;
  for (const auto& run : runs) names.insert(run.name);
  const size_t before = runs.size();
  for (const auto& next : next_factors(analyse_study(options, records))) {
    for (auto& run : expand_factor(options, next.batch, next.variant, next.lr_factor)) {
      if (names.insert(run.name).second) runs.push_back(std::move(run));
    }
  }
  return runs.size() > before;
}

// The grid, and what earlier rounds added to it.
std::vector<RunSpec> known_runs(const StudyOptions& options, const StudyRunner& runner) {
  std::vector<RunSpec> runs = expand_grid(options);
  for (int64_t round = 0; round < options.lr_extend && extend(options, runner, runs); ++round) {
  }
  return runs;
}

void write_report(const StudyOptions& options, const StudyRunner& runner,
                  const std::vector<StudyRun>& records) {
  const StudyAnalysis analysis = analyse_study(options, records);
  if (analysis.settings.empty()) {
    throw UsageError("the study " + options.directory() + " has no run yet.");
  }
  const auto predicted = predict_study(runner, analysis, records);
  const fs::path folder = options.directory();
  write_text_file_atomically(folder / "results.json",
                             study_to_json(options, analysis, predicted).dump(2) + "\n");
  write_text_file_atomically(folder / "runs.csv", study_to_csv(analysis, records));
  write_text_file_atomically(folder / "report.html",
                             study_to_html(options, analysis, records, predicted));
  for (const auto& sentence : analysis.verdict) std::cout << sentence << '\n';
  std::cout << "Report: " << (folder / "report.html").string() << " (and results.json, runs.csv)\n";
}

std::string told(const StudyRun& record) {
  const auto value = record.final_value();
  return std::string(state_name(record.state)) +
         (value ? ", " + format_rounded(*value) : std::string());
}

int stopped() {
  log::info("Stopped after a checkpoint; run the study again to go on.");
  log::flush();
  return static_cast<int>(ExitCode::kStopped);
}

int run_all(const StudyOptions& options, const StudyRunner& runner) {
  std::vector<RunSpec> runs = expand_grid(options);
  check_study_runs(options, runner, runner.records(runs));
  const StopSignal stop;
  size_t next = 0;
  for (int64_t round = 0;; ++round) {
    for (; next < runs.size(); ++next) {
      const RunSpec& run = runs[next];
      const bool was_done = is_done(runner.record(run));
      if (stop.requested() || !runner.finish(run, stop)) return stopped();
      if (was_done) continue;
      log::info("run " + std::to_string(next + 1) + " of " + std::to_string(runs.size()) + ", " +
                run.name + ": " + told(runner.record(run)));
    }
    if (round >= options.lr_extend || !extend(options, runner, runs)) break;
    log::info("some best learning rates are at the edge of those tried: " +
              std::to_string(runs.size() - next) + " more runs");
  }
  log::flush();
  write_report(options, runner, runner.records(runs));
  return static_cast<int>(ExitCode::kDone);
}

int run_one(const StudyOptions& options, const StudyRunner& runner, const std::string& name) {
  const auto runs = known_runs(options, runner);
  const auto found = std::ranges::find(runs, name, &RunSpec::name);
  if (found == runs.end()) throw UsageError("the study has no run '" + name + "'.");
  const StopSignal stop;
  return runner.finish(*found, stop) ? static_cast<int>(ExitCode::kDone) : stopped();
}

// The batch script of an array over the runs that are not done.
int print_array(const StudyOptions& options, const StudyRunner& runner, const std::string& file) {
  SlurmRequest request;
  request.source = SlurmRequest::Source::kCommands;
  request.starter = SlurmRequest::Starter::kProgram;
  request.job_name = options.name;
  request.working_directory = fs::current_path().string();
  request.run_dir = runner.runs_dir().string();
  request.program = own_path();
  int64_t most_ranks = 1;
  const auto records = runner.records(known_runs(options, runner));
  check_study_runs(options, runner, records);
  for (const auto& record : records) {
    if (is_done(record)) continue;
    most_ranks = std::max(most_ranks, record.spec.ranks);
    request.commands.push_back({"study", file, "--run", record.spec.name});
  }
  if (request.commands.empty()) {
    throw UsageError("every run of the study is done: see " + options.directory() +
                     "/report.html, or write it with --report-only.");
  }
  request.num_ranks = static_cast<int>(most_ranks);
  std::cout << slurm_script(request);
  return static_cast<int>(ExitCode::kDone);
}

// A mistake there is told once, by this process.
void check_base(const std::string& file) {
  const Config base = load_config(file).config;
  if (base.run.epochs > 0.0 || base.batch.per_rank > 0) {
    throw UsageError(file +
                     ": a study sets run.steps and batch.global of every run; give these and not "
                     "run.epochs or batch.per_rank.");
  }
}

int run_study(const StudyArguments& arguments) {
  const StudyOptions options = load_study(arguments.file);
  if (options.forks.empty()) check_base(options.config);
  for (const auto& fork : options.forks) check_base(options.config_of(fork));
  const StudyRunner runner(options, own_path());
  switch (arguments.action) {
    case Action::kRun:
      return run_all(options, runner);
    case Action::kOneRun:
      return run_one(options, runner, arguments.one_run);
    case Action::kSlurm:
      return print_array(options, runner, arguments.file);
    case Action::kReport:
      write_report(options, runner, runner.records(known_runs(options, runner)));
      return static_cast<int>(ExitCode::kDone);
  }
  throw InternalError("an action of study without code");
}
}  // namespace

void add_study_options(CLI::App& study, std::function<int()>& action) {
  auto arguments = std::make_shared<StudyArguments>();
  study.add_option("STUDY", arguments->file, "Study file (TOML, docs/study.md)");
  auto* slurm = study.add_flag_callback(
      "--slurm", [arguments] { arguments->action = Action::kSlurm; },
      "Print the batch script of a job array over the runs that are left");
  auto* report = study.add_flag_callback(
      "--report-only", [arguments] { arguments->action = Action::kReport; },
      "Write the report of the runs there are");
  auto* one = study
                  .add_option_function<std::string>(
                      "--run",
                      [arguments](const std::string& name) {
                        arguments->one_run = name;
                        arguments->action = Action::kOneRun;
                      },
                      "Only this run of the grid")
                  ->type_name("NAME");
  slurm->excludes(report)->excludes(one);
  report->excludes(one);
  study.footer(
      "Interrupted, it goes on from where it was. Examples:\n"
      "  trireme study configs/study_demo.toml\n"
      "  trireme study configs/study_demo.toml --slurm | sbatch --time 1:00:00\n"
      "  trireme study fit POINTS.csv");
  study.callback([arguments, &study, &action] {
    if (!study.get_subcommands().empty()) return;
    if (arguments->file.empty()) throw CLI::RequiredError("STUDY");
    action = [arguments] { return run_study(*arguments); };
  });
}
}  // namespace trireme
