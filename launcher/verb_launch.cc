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
#include "launcher/child_process.h"
#include "launcher/command_line.h"
#include "launcher/slurm_script.h"
#include "launcher/topology.h"
#include "launcher/verbs.h"

namespace trireme {
namespace {
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

int positive_number(const char* variable) {
  const char* text = std::getenv(variable);
  return text == nullptr ? 0 : std::max(0, std::atoi(text));
}

LaunchRequest request_of(const LaunchArguments& arguments) {
  LaunchRequest request;
  request.num_ranks = arguments.num_ranks;
  if (!arguments.hosts.empty()) request.hosts = parse_hosts(arguments.hosts);
  // Within an allocation srun knows the nodes.
  if (request.hosts.empty() && std::getenv("SLURM_JOB_ID") != nullptr) {
    request.starter = Starter::kSrun;
    request.num_nodes = std::max(1, positive_number("SLURM_JOB_NUM_NODES"));
    if (request.num_ranks == 0) request.num_ranks = positive_number("SLURM_NTASKS");
  }
  request.user = geteuid() == 0 ? User::kRoot : User::kOrdinary;
  request.build = kBuild;
  request.program = own_path();
  request.arguments = train_arguments(arguments);
  return request;
}

int print_slurm_script(const LaunchArguments& arguments, const Config& config) {
  if (!arguments.hosts.empty())
    throw UsageError("--hosts and --slurm exclude each other: Slurm chooses the hosts.");
  SlurmRequest request = arguments.slurm;
  request.job_name = config.run.name;
  request.num_ranks = arguments.num_ranks;
  request.working_directory = std::filesystem::current_path().string();
  request.program = own_path();
  request.arguments = train_arguments(arguments);
  std::cout << slurm_script(request);
  return static_cast<int>(ExitCode::kDone);
}

int launch(const LaunchArguments& arguments) {
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
  const LaunchResult result = interpret(run_child(plan), plan.command.front());
  if (!result.message.empty()) {
    // With another code a rank has told the error itself.
    result.code == ExitCode::kLost ? log::error(result.message) : log::info(result.message);
  }
  log::flush();
  return static_cast<int>(result.code);
}

void add_options(CLI::App& verb, const std::shared_ptr<LaunchArguments>& arguments) {
  add_config_arguments(verb, arguments->config);
  verb.add_flag("--fresh", arguments->is_fresh,
                "Start over: remove what an earlier run left in the run directory");
  verb.add_flag("--quiet", arguments->is_quiet,
                "Print warnings and errors only; log.txt gets everything");
  verb.add_option("-n,--ranks", arguments->num_ranks, "Ranks in total; default: one per GPU")
      ->check(CLI::Range(1, 1 << 20));
  verb.add_option("--hosts", arguments->hosts, "Hosts and their ranks")->type_name("A:4,B:4");
  auto* dry_run = verb.add_flag_callback(
      "--dry-run", [arguments] { arguments->output = Output::kDryRun; },
      "Print the exact command line only");
  auto* slurm = verb.add_flag_callback(
      "--slurm", [arguments] { arguments->output = Output::kSlurm; },
      "Print a batch script for sbatch only");
  slurm->excludes(dry_run);
  auto& options = arguments->slurm;
  verb.add_option("--nodes", options.num_nodes, "With --slurm: nodes")
      ->check(CLI::Range(1, 1 << 16))
      ->needs(slurm);
  verb.add_option("--gpus-per-node", options.gpus_per_node,
                  "With --slurm: GPUs of a node, a rank each")
      ->check(CLI::Range(1, 64))
      ->needs(slurm);
  verb.add_option("--cpus-per-task", options.cpus_per_task, "With --slurm: cores of a rank")
      ->check(CLI::Range(1, 1 << 12))
      ->needs(slurm);
  verb.add_option("--time", options.time, "With --slurm: time limit, as D-HH:MM:SS")->needs(slurm);
  verb.add_option("--partition", options.partition, "With --slurm: partition")->needs(slurm);
  verb.add_option("--account", options.account, "With --slurm: account")->needs(slurm);
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
  verb->callback([arguments, &action] { action = [arguments] { return launch(*arguments); }; });
}
}  // namespace trireme
