#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <system_error>

#include <CLI/CLI.hpp>
#include <unistd.h>

#include "core/error.h"
#include "core/log.h"
#include "launcher/allocation.h"
#include "launcher/command_line.h"
#include "launcher/launch_plan.h"
#include "launcher/launch_run.h"
#include "launcher/provenance.h"
#include "launcher/rank_environment.h"
#include "launcher/slurm_script.h"
#include "launcher/verbs.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

#ifdef TRIREME_WITH_CUDA
constexpr Build kBuild = Build::kCuda;
#else
constexpr Build kBuild = Build::kCpu;
#endif

enum class Output { kRun, kDryRun, kSlurm };

struct LaunchArguments {
  ConfigArguments config;
  bool is_fresh = false;
  bool is_quiet = false;
  int num_ranks = 0;
  std::string hosts;
  std::string hostfile;
  std::string starter = "auto";
  std::vector<std::string> environment;  // Names beyond the allow-list.
  bool has_rank_output = false;
  std::string rank_output;  // Empty: RUN/ranks.
  int num_restarts = 0;
  int kill_timeout_seconds = 0;
  Output output = Output::kRun;
  SlurmRequest slurm;
};

std::string own_path() {
  std::error_code error;
  const auto path = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) throw InternalError("cannot find this program's own path: " + error.message());
  return path.string();
}

std::vector<std::string> train_arguments(const LaunchArguments& arguments) {
  std::vector<std::string> words{"train", arguments.config.file};
  for (const auto& set : arguments.config.set) words.insert(words.end(), {"--set", set});
  if (!arguments.config.run_dir.empty())
    words.insert(words.end(), {"--run-dir", arguments.config.run_dir});
  if (arguments.is_fresh) words.emplace_back("--fresh");
  if (arguments.is_quiet) words.emplace_back("--quiet");
  return words;
}

std::vector<HostSlots> hosts_of(const LaunchArguments& arguments, const Allocation& allocation) {
  if (!arguments.hosts.empty()) return parse_hosts(arguments.hosts);
  if (!arguments.hostfile.empty()) return read_hostfile(arguments.hostfile);
  if (!allocation.hostfile.empty()) return read_hostfile(allocation.hostfile);
  return {};
}

LaunchRequest request_of(const LaunchArguments& arguments) {
  LaunchRequest request;
  request.num_ranks = arguments.num_ranks;
  request.environment = filter_environment(environ, arguments.environment);
  request.exported = names_for_hosts(request.environment, arguments.environment);
  request.exported.emplace_back(kLaunchIdVariable);
  const Allocation allocation = find_allocation();
  request.hosts = hosts_of(arguments, allocation);
  if (request.hosts.empty() && allocation.is_slurm) {
    request.starter =
        arguments.starter == "auto" ? starter_here() : starter_named(arguments.starter);
    request.num_nodes = allocation.num_nodes;
    request.cpus_per_task = allocation.cpus_per_task;
    request.cpus_on_node = allocation.cpus_on_node;
    if (request.num_ranks == 0) request.num_ranks = allocation.num_tasks;
  } else if (arguments.starter == "srun") {
    throw UsageError(
        "--starter srun needs a Slurm allocation, and this is none. Call launch within salloc or "
        "sbatch, or leave the option out.");
  }
  request.user = geteuid() == 0 ? User::kRoot : User::kOrdinary;
  request.build = kBuild;
  request.labels = arguments.has_rank_output ? LineLabels::kRank : LineLabels::kNone;
  request.program = own_path();
  request.arguments = train_arguments(arguments);
  return request;
}

std::string run_dir_of(const Config& config) {
  return config.run.dir.empty() ? "runs/" + config.run.name : config.run.dir;
}

int print_slurm_script(const LaunchArguments& arguments, const Config& config) {
  if (!arguments.hosts.empty() || !arguments.hostfile.empty())
    throw UsageError("--hosts and --slurm exclude each other: Slurm chooses the hosts.");
  SlurmRequest request = arguments.slurm;
  request.job_name = config.run.name;
  request.num_ranks = arguments.num_ranks;
  request.run_dir = run_dir_of(config);
  request.working_directory = std::filesystem::current_path().string();
  request.program = own_path();
  request.arguments = train_arguments(arguments);
  if (arguments.starter == "mpirun") {
    request.starter = SlurmRequest::Starter::kProgram;
    request.arguments.front() = "launch";
    request.arguments.insert(request.arguments.end(), {"--starter", "mpirun"});
  }
  std::cout << slurm_script(request);
  return static_cast<int>(ExitCode::kDone);
}

int launch(LaunchArguments arguments) {
  // The configuration of a run starts it again: where it was started, on as many ranks.
  if (const auto earlier = read_start_beside(arguments.config.file)) {
    const auto here = std::filesystem::current_path();
    if (earlier->working_directory != here && std::filesystem::exists(earlier->working_directory)) {
      arguments.config.file = std::filesystem::absolute(arguments.config.file).string();
      std::filesystem::current_path(earlier->working_directory);
      log::info("Starting in " + earlier->working_directory.string() + ", as this run was.");
    }
    const bool is_here = arguments.hosts.empty() && arguments.hostfile.empty();
    if (arguments.num_ranks == 0 && is_here && arguments.output != Output::kSlurm &&
        !find_allocation().is_slurm && earlier->num_nodes == 1)
      arguments.num_ranks = earlier->num_ranks;
  }
  const LoadedConfig loaded =
      load(arguments.config);  // A mistake there is told once, by this process.
  if (arguments.output == Output::kSlurm) return print_slurm_script(arguments, loaded.config);
  if (std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr) {
    throw UsageError(
        "launch starts the ranks itself and is not for mpirun. Run `trireme launch` alone, or "
        "`mpirun -np N trireme train`.");
  }
  const LaunchPlan plan = plan_launch(detect_machine(), request_of(arguments));
  if (arguments.output == Output::kDryRun) {
    std::cout << shell_line(plan) << '\n';
    return static_cast<int>(ExitCode::kDone);
  }
  if (!arguments.is_quiet) log::info("Launching " + plan.explanation + ".");
  log::flush();
  LaunchRunOptions options{.num_restarts = arguments.num_restarts,
                           .kill_timeout_seconds = arguments.kill_timeout_seconds,
                           .rank_output = {},
                           .run_dir = run_dir_of(loaded.config)};
  if (arguments.has_rank_output) {
    options.rank_output =
        arguments.rank_output.empty() ? options.run_dir / "ranks" : fs::path(arguments.rank_output);
  }
  return static_cast<int>(run_plan(plan, options));
}

void add_rank_options(CLI::App& verb, const std::shared_ptr<LaunchArguments>& arguments) {
  verb.add_option("-n,--ranks", arguments->num_ranks, "Ranks in total; default: one per GPU")
      ->check(CLI::Range(1, 1 << 20));
  auto* hosts =
      verb.add_option("--hosts", arguments->hosts, "Hosts and their ranks")->type_name("A:4,B:4");
  verb.add_option("--hostfile", arguments->hostfile, "The same from a file: `node1 slots=4` a line")
      ->type_name("FILE")
      ->excludes(hosts);
  verb.add_option("--starter", arguments->starter, "In a Slurm allocation: srun, mpirun or auto")
      ->check(CLI::IsMember({"auto", "srun", "mpirun"}));
  verb.add_option("--env", arguments->environment,
                  "Passes this environment variable to ranks too (docs/launching.md); repeatable")
      ->type_name("NAME")
      ->allow_extra_args(false);
  verb.add_option("--rank-output", arguments->rank_output,
                  "A log for each rank; default: RUN/ranks")
      ->type_name("[DIR]")
      ->expected(0, 1);
  verb.add_option("--restarts", arguments->num_restarts,
                  "Starts again, at most so often, when a rank is lost or ranks stop with 75")
      ->check(CLI::Range(0, 1 << 20));
  verb.add_option(
          "--kill-timeout", arguments->kill_timeout_seconds,
          "Seconds after which ranks that a signal has not stopped are killed; default: none")
      ->check(CLI::Range(1, 1 << 20));
}

void add_slurm_options(CLI::App& verb, const std::shared_ptr<LaunchArguments>& arguments,
                       CLI::Option* slurm) {
  auto& options = arguments->slurm;
  const auto number = [&](const char* name, int& value, const char* text, int most) {
    verb.add_option(name, value, text)
        ->check(CLI::Range(1, most))
        ->needs(slurm)
        ->group("With --slurm");
  };
  const auto text = [&](const char* name, std::string& value, const char* help) {
    verb.add_option(name, value, help)->needs(slurm)->group("With --slurm");
  };
  number("--nodes", options.num_nodes, "Nodes", 1 << 16);
  number("--gpus-per-node", options.gpus_per_node, "GPUs of a node, a rank each", 64);
  number("--cpus-per-task", options.cpus_per_task, "Cores of a rank", 1 << 12);
  number("--grace", options.grace_seconds, "Seconds before the limit to stop at; default 120",
         65535);
  text("--time", options.time, "Time limit, as D-HH:MM:SS");
  text("--partition", options.partition, "Partition");
  text("--account", options.account, "Account");
  text("--qos", options.qos, "Quality of service");
  text("--container", options.container, "Apptainer image (.sif), or one for pyxis");
  verb.add_option("--mounts", options.mounts, "Folders that the container sees, SRC:DST,…")
      ->needs("--container")
      ->group("With --slurm");
}

void add_options(CLI::App& verb, const std::shared_ptr<LaunchArguments>& arguments) {
  add_config_arguments(verb, arguments->config);
  verb.add_flag("--fresh", arguments->is_fresh,
                "Start over: remove what an earlier run left in the run directory");
  verb.add_flag("--quiet", arguments->is_quiet,
                "Print warnings and errors only; log.txt gets everything");
  add_rank_options(verb, arguments);
  auto* dry_run = verb.add_flag_callback(
      "--dry-run", [arguments] { arguments->output = Output::kDryRun; },
      "Print the exact command line only");
  auto* slurm = verb.add_flag_callback(
      "--slurm", [arguments] { arguments->output = Output::kSlurm; },
      "Print a batch script for sbatch only");
  slurm->excludes(dry_run);
  add_slurm_options(verb, arguments, slurm);
}
}  // namespace

void add_launch_verb(CLI::App& app, std::function<int()>& action) {
  auto arguments = std::make_shared<LaunchArguments>();
  auto* verb =
      app.add_subcommand("launch", "Start training on all GPUs or cores here, or on several hosts");
  add_options(*verb, arguments);
  verb->footer(
      "Ctrl-C or SIGTERM once: a checkpoint, then exit 75; launch again to go on.\nExamples:\n"
      "  trireme launch configs/demo.toml -n 2\n"
      "  trireme launch CONFIG --slurm --nodes 2 --gpus-per-node 8 --time 12:00:00 | sbatch");
  verb->callback([arguments, verb, &action] {
    if (verb->count("--rank-output") > 0) arguments->has_rank_output = true;
    action = [arguments] { return launch(*arguments); };
  });
}
}  // namespace trireme
