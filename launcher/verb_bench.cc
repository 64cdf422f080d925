#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "bench/suite.h"
#include "bench/worker.h"
#include "bench/workload.h"
#include "core/error.h"
#include "core/files.h"
#include "core/formatted.h"
#include "core/log.h"
#include "dist/mpi_environment.h"
#include "launcher/command_line.h"
#include "launcher/command_output.h"
#include "launcher/launch_plan.h"
#include "launcher/verbs.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct BenchArguments {
  std::vector<std::string> groups;
  int num_ranks = 2;
  int rounds = 9;
  std::string json_file;
  std::string python;
  std::string peers = TRIREME_BENCH_PEERS;
  std::string folder;      // Of the workload; empty: a temporary one.
  bool is_worker = false;  // Started by another bench, under mpirun.
  bool makes_first_step = false;
};

// The Python that has the packages that the peers need, or nothing; UsageError where it was asked
// for and has not.
std::string find_python(const std::string& asked) {
  const fs::path beside =
      fs::path(TRIREME_BENCH_PEERS).parent_path().parent_path() / ".venv/bin/python";
  const std::string python = asked.empty() ? beside.string() : asked;
  const CommandOutput missing =
      output_of({python, "-c",
                 "import sys, importlib.util as i; "
                 "m = [p for p in ('torch', 'diffusers', 'h5py') if not i.find_spec(p)]; "
                 "print(*m, sep=', ', end=''); sys.exit(bool(m))"},
                /*limit_seconds=*/60);
  if (missing.exit_code == 0) return python;
  if (asked.empty()) return {};
  throw UsageError("--python: '" + asked + "' " +
                   (missing.text.empty() ? "does not run as a Python" : "lacks " + missing.text) +
                   ". Name a Python with PyTorch, diffusers and h5py (./bootstrap test makes one), "
                   "or leave --python out.");
}

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

std::string load_average() {
  std::ifstream file("/proc/loadavg");
  std::string minute;
  file >> minute;
  return minute;
}

std::string time_text(double seconds) {
  const double size = std::abs(seconds);
  if (size >= 1.0) return formatted("%.3g s", seconds);
  if (size >= 1e-3) return formatted("%.3g ms", seconds * 1e3);
  return formatted("%.3g us", seconds * 1e6);
}

std::string rate_text(double rate) {
  return rate >= 1e6 ? formatted("%.3g M/s", rate / 1e6) : formatted("%.3g k/s", rate / 1e3);
}

std::string value_text(const bench::Interval& seconds, bench::Unit unit) {
  if (unit == bench::Unit::kPerSecond) {
    return rate_text(1 / seconds.median) + " [" + rate_text(1 / seconds.high) + ", " +
           rate_text(1 / seconds.low) + "]";
  }
  return time_text(seconds.median) + " [" + time_text(seconds.low) + ", " +
         time_text(seconds.high) + "]";
}

void print_row(const std::string& name, const std::string& value, const std::string& ratio,
               const std::string& target) {
  std::printf("  %-34s %-34s %-24s %s\n", name.c_str(), value.c_str(), ratio.c_str(),
              target.c_str());
}

std::string verdict(double value, double target, const std::string& text) {
  return text + (value <= target ? "  met" : "  missed");
}

void print_result(const bench::Result& result) {
  const auto& comparison = result.comparison;
  std::printf("%s\n", comparison.title.c_str());
  std::string target;
  if (comparison.target_seconds > 0) {
    const std::string limit = comparison.unit == bench::Unit::kPerSecond
                                  ? ">= " + rate_text(1 / comparison.target_seconds)
                                  : "<= " + time_text(comparison.target_seconds);
    target = verdict(result.ours.median, comparison.target_seconds, limit);
  }
  print_row("trireme", value_text(result.ours, comparison.unit), "", target);
  for (const auto& [peer, seconds, ratio] : result.peers) {
    print_row(peer.label, value_text(seconds, comparison.unit),
              formatted("%.3f [%.3f, %.3f]", ratio.median, ratio.low, ratio.high),
              peer.target > 0
                  ? verdict(ratio.median, peer.target, formatted("<= %.3f", peer.target))
                  : "");
  }
  std::fflush(stdout);
}

Json interval_json(const bench::Interval& interval) {
  return {{"median", interval.median}, {"low", interval.low}, {"high", interval.high}};
}

Json result_json(const bench::Result& result) {
  const auto& comparison = result.comparison;
  Json json = {{"group", comparison.group},
               {"name", comparison.name},
               {"title", comparison.title},
               {"seconds", interval_json(result.ours)},
               {"peers", Json::array()}};
  if (comparison.target_seconds > 0) json["target_seconds"] = comparison.target_seconds;
  for (const auto& [peer, seconds, ratio] : result.peers) {
    Json entry = {{"label", peer.label},
                  {"seconds", interval_json(seconds)},
                  {"ratio", interval_json(ratio)}};
    if (peer.target > 0) entry["target_ratio"] = peer.target;
    json["peers"].push_back(entry);
  }
  return json;
}

std::vector<bench::Comparison> chosen(const std::vector<std::string>& groups, int num_ranks) {
  auto all = bench::all_comparisons(num_ranks);
  if (groups.empty()) return all;
  std::vector<std::string> names;
  for (const auto& comparison : all) {
    if (names.empty() || names.back() != comparison.group) names.push_back(comparison.group);
  }
  for (const auto& group : groups) {
    if (std::ranges::find(names, group) != names.end()) continue;
    std::string list;
    for (const auto& name : names) list += (list.empty() ? "" : ", ") + name;
    throw UsageError("bench has no measurement '" + group + "'. There are: " + list + ".");
  }
  std::erase_if(all, [&](const bench::Comparison& comparison) {
    return std::ranges::find(groups, comparison.group) == groups.end();
  });
  return all;
}

bench::SuiteOptions suite_options(const BenchArguments& arguments, const fs::path& folder) {
  LaunchRequest request;
  request.num_ranks = arguments.num_ranks;
  request.user = geteuid() == 0 ? User::kRoot : User::kOrdinary;
  request.program = fs::read_symlink("/proc/self/exe").string();
  request.arguments = {"bench", "--worker", "--folder", folder.string()};
  bench::SuiteOptions options;
  options.worker = plan_launch(detect_machine(), request).command;
  for (auto& word : options.worker) {
    if (word.starts_with("OMP_NUM_THREADS=")) word = "OMP_NUM_THREADS=1";
  }
  const std::string python = find_python(arguments.python);
  if (python.empty()) {
    log::warn(
        "no Python with PyTorch was found (--python PATH, or ./bootstrap test): only what is "
        "in this program is measured");
  } else {
    options.python = {python, arguments.peers + "/peer.py", folder.string(), "--ranks",
                      std::to_string(arguments.num_ranks)};
  }
  options.environment = {{"OMP_NUM_THREADS", "1"}, {"MKL_NUM_THREADS", "1"}};
  options.rounds = arguments.rounds;
  return options;
}

int orchestrate(const BenchArguments& arguments) {
  const auto comparisons = chosen(arguments.groups, arguments.num_ranks);
  const bool is_temporary = arguments.folder.empty();
  const fs::path folder =
      is_temporary ? fs::temp_directory_path() / ("trireme-bench-" + std::to_string(getpid()))
                   : fs::path(arguments.folder);
  const bench::SuiteOptions options = suite_options(arguments, folder);
  bench::write_workload(folder);
  const std::string processor = processor_name();
  const unsigned cores = std::thread::hardware_concurrency();
  std::printf(
      "%d ranks, 1 thread each, %d rounds, interleaved; %s, %u cores, load %s at the start\n"
      "median [95 %% interval]; ratio = trireme's time / the peer's, round by round\n\n",
      arguments.num_ranks, arguments.rounds, processor.c_str(), cores, load_average().c_str());
  Json json = {{"ranks", arguments.num_ranks},   {"rounds", arguments.rounds},
               {"processor", processor},         {"cores", cores},
               {"load_average", load_average()}, {"results", Json::array()}};
  bench::Suite suite(options);
  for (const auto& comparison : comparisons) {
    const bench::Result result = suite.measure(comparison);
    print_result(result);
    json["results"].push_back(result_json(result));
  }
  if (!arguments.json_file.empty()) {
    write_text_file_atomically(arguments.json_file, json.dump(2) + "\n");
  }
  if (is_temporary) fs::remove_all(folder);
  return static_cast<int>(ExitCode::kDone);
}

int work(const BenchArguments& arguments) {
  return run_reporting_as_rank([&](MpiEnvironment& mpi) {
    log::configure(mpi.rank(), mpi.world_size(), log::Console::kQuiet);
    if (arguments.makes_first_step) {
      bench::make_first_step(mpi, arguments.folder);
    } else {
      bench::serve(mpi, arguments.folder);
    }
    return static_cast<int>(ExitCode::kDone);
  });
}
}  // namespace

void add_bench_verb(CLI::App& app, std::function<int()>& action) {
  auto arguments = std::make_shared<BenchArguments>();
  auto* verb = app.add_subcommand(
      "bench",
      "Measure step, all-reduce, optimizer, loader, start and checkpoint, each beside its "
      "peer (PyTorch, MPI, h5py) in turn");
  verb->add_option("WHAT", arguments->groups,
                   "step, all_reduce, optimizer, loader, start, checkpoint; without it all");
  verb->add_option("-n,--ranks", arguments->num_ranks, "Ranks of both sides (2)")
      ->check(CLI::Range(1, 1024));
  verb->add_option("--rounds", arguments->rounds, "Samples of each (9)")
      ->check(CLI::Range(1, 1000));
  verb->add_option("--json", arguments->json_file, "Write the results there too")
      ->type_name("FILE");
  verb->add_option("--python", arguments->python,
                   "Python with PyTorch, diffusers and h5py; default: the one of ./bootstrap")
      ->type_name("PATH");
  verb->add_option("--peers", arguments->peers, "Folder of the Python side (bench/peers)")
      ->type_name("DIR");
  verb->add_option("--folder", arguments->folder, "Where the workload's files lie, and stay")
      ->type_name("DIR");
  verb->add_flag("--worker", arguments->is_worker)->group("");
  verb->add_flag("--first-step", arguments->makes_first_step)->group("");
  verb->footer("Example:\n  trireme bench all_reduce optimizer --rounds 15 --json bench.json");
  verb->callback([arguments, &action] {
    action = [arguments] {
      return arguments->is_worker ? work(*arguments) : orchestrate(*arguments);
    };
  });
}
}  // namespace trireme
