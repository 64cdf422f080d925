#include <filesystem>
#include <iostream>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>
#include <unistd.h>

#include "core/error.h"
#include "core/log.h"
#include "dist/announced.h"
#include "dist/mpi_environment.h"
#include "launcher/command_line.h"
#include "launcher/command_output.h"
#include "launcher/doctor.h"
#include "launcher/doctor_report.h"
#include "launcher/launch_plan.h"
#include "launcher/report_table.h"
#include "launcher/verbs.h"

namespace trireme {
namespace {
constexpr int kLimitSeconds = 120;

struct DoctorArguments {
  OutputFormat format = OutputFormat::kTable;
  std::string folder = ".";
  int num_ranks = 0;
};

ExitCode show(const std::vector<DoctorRow>& rows, const std::vector<std::string>& hosts,
              OutputFormat format) {
  std::cout << (format == OutputFormat::kJson ? doctor_json(rows, hosts)
                                              : doctor_table(rows, hosts))
            << std::flush;
  return worst(rows) == Health::kFail ? ExitCode::kOther : ExitCode::kDone;
}

// Each of the ranks that mpirun or srun started.
ExitCode examine_as_rank(MpiEnvironment& mpi, const DoctorArguments& arguments) {
  log::configure(mpi.rank(), mpi.world_size());
  Findings mine;
  mpi.run_on_all_ranks([&] { mine = examine_host(detect_machine()); });
  for (auto& finding : examine_ranks(mpi, arguments.folder)) mine.push_back(std::move(finding));
  std::vector<Findings> all;
  for (const auto& text : mpi.gather_strings(findings_to_json(mine)))
    all.push_back(findings_from_json(text));
  const auto hosts = mpi.gather_strings(mpi.host_name());
  const auto rows = merge_findings(all);
  if (mpi.rank() == 0) return show(rows, hosts, arguments.format);
  return worst(rows) == Health::kFail ? ExitCode::kOther : ExitCode::kDone;
}

std::string own_host() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

// Alone: starts ranks as `launch` would, and is there to tell when even that fails.
ExitCode examine_from_outside(const DoctorArguments& arguments) {
  const Machine machine = detect_machine();
  LaunchRequest request;
  request.num_ranks = arguments.num_ranks > 0
                          ? arguments.num_ranks
                          : std::max<int>(2, static_cast<int>(machine.gpus.size()));
  request.user = geteuid() == 0 ? User::kRoot : User::kOrdinary;
  request.program = std::filesystem::read_symlink("/proc/self/exe").string();
  request.arguments = {"doctor", "--dir", arguments.folder};
  if (arguments.format == OutputFormat::kJson) request.arguments.emplace_back("--json");
  const LaunchPlan plan = plan_launch(machine, request);
  const CommandOutput ranks = output_of(plan.command, kLimitSeconds);
  const bool has_report = ranks.text.find(" FAIL\n") != std::string::npos ||
                          ranks.text.find("\"checks\"") != std::string::npos;
  if (has_report) {
    std::cout << ranks.text << std::flush;
    return ranks.exit_code == 0 ? ExitCode::kDone : ExitCode::kOther;
  }
  Findings findings = examine_host(machine);
  const std::string why = ranks.exit_code == 127 ? "mpirun is not to be found"
                          : ranks.exit_code == 124
                              ? "hung for " + std::to_string(kLimitSeconds) + " s"
                              : one_paragraph(ranks.text).substr(0, 500);
  findings.push_back({"starting ranks", Health::kFail, why,
                      ranks.exit_code == 127 ? "apt-get install openmpi-bin, or load the module"
                                             : "run it by hand: " + shell_line(plan)});
  return show(merge_findings({findings}), {own_host()}, arguments.format);
}

int doctor(const DoctorArguments& arguments) {
  if (announced_processes().num_processes <= 1)
    return static_cast<int>(examine_from_outside(arguments));
  return run_reporting_as_rank(
      [&](MpiEnvironment& mpi) { return static_cast<int>(examine_as_rank(mpi, arguments)); });
}
}  // namespace

void add_doctor_verb(CLI::App& app, std::function<int()>& action) {
  auto arguments = std::make_shared<DoctorArguments>();
  auto* verb = app.add_subcommand(
      "doctor", "What of MPI, GPUs, HDF5, Slurm and the file system works here, and what mends it");
  verb->add_flag_callback(
      "--json", [arguments] { arguments->format = OutputFormat::kJson; },
      "Print JSON instead of the table");
  verb->add_option("--dir", arguments->folder,
                   "Folder whose file system is tested; default: this one")
      ->type_name("DIR");
  verb->add_option("-n,--ranks", arguments->num_ranks,
                   "Ranks to start; default: a GPU each, 2 at least")
      ->check(CLI::Range(1, 1 << 16));
  verb->footer(
      "Ends with code 1 where a check is FAIL. Examples:\n  trireme doctor\n"
      "  srun --mpi=pmix trireme doctor --dir /scratch/me   # on all nodes of an allocation");
  verb->callback([arguments, &action] { action = [arguments] { return doctor(*arguments); }; });
}
}  // namespace trireme
