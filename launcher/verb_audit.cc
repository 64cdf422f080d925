#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/formatted.h"
#include "core/log.h"
#include "dist/mpi_environment.h"
#include "launcher/command_line.h"
#include "launcher/config_file.h"
#include "launcher/report_table.h"
#include "launcher/verbs.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/reduce/checksum.h"
#include "trainer/trainer.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
struct AuditArguments {
  std::string run;
  int64_t from = 0;
  int64_t to = 0;  // 0: the last step that the run recorded.
  OutputFormat output = OutputFormat::kTable;
};

struct Recorded {
  std::string gradients;
  std::string parameters;
  double loss = 0.0;
};
// By step.
using Record = std::map<int64_t, Recorded>;

Record read_record(const fs::path& run) {
  const fs::path file = run / "metrics.jsonl";
  std::ifstream stream(file);
  if (!stream) throw InputError(file.string() + " cannot be read. Give a run directory.");
  Record record;
  for (std::string line; std::getline(stream, line);) {
    const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || json.value("kind", "") != "train") continue;
    if (!json.contains("step") || !json["step"].is_number_integer()) continue;
    const bool has_loss = json.contains("loss") && json["loss"].is_number();
    record[json["step"].get<int64_t>()] = {.gradients = json.value("grad_checksum", ""),
                                           .parameters = json.value("param_checksum", ""),
                                           .loss = has_loss ? json["loss"].get<double>() : 0.0};
  }
  return record;
}

// The checkpoint of step `from`; nothing for the start of the run.
std::optional<fs::path> checkpoint_at(const fs::path& run, int64_t from) {
  if (from == 0) return std::nullopt;
  const std::string name = formatted("step-%08lld", static_cast<long long>(from));
  if (fs::exists(run / "checkpoints" / name)) return run / "checkpoints" / name;
  std::vector<std::string> present;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints", ignored)) {
    const std::string found = entry.path().filename().string();
    if (found.starts_with("step-")) present.push_back(std::to_string(std::stoll(found.substr(5))));
  }
  std::ranges::sort(present, {}, [](const std::string& step) { return std::stoll(step); });
  std::string list = "0 (the start)";
  for (const auto& step : present) list += ", " + step;
  throw UsageError("--from " + std::to_string(from) + ": " + run.string() +
                   " has no checkpoint of that step to begin from. There are: " + list + ".");
}

void check_stretch(const Record& record, const AuditArguments& arguments) {
  for (int64_t step = arguments.from + 1; step <= arguments.to; ++step) {
    const auto found = record.find(step);
    if (found == record.end() || found->second.gradients.empty() ||
        found->second.parameters.empty()) {
      throw UsageError(arguments.run + "/metrics.jsonl has no checksums of step " +
                       std::to_string(step) +
                       ". They are recorded by runs with parallel.shards > 0; choose --from and "
                       "--to within what was recorded.");
    }
  }
  if (arguments.from >= arguments.to) {
    throw UsageError("there is nothing to audit from step " + std::to_string(arguments.from) +
                     " to step " + std::to_string(arguments.to) + ": --from must lie before --to.");
  }
}

// What the first step that differs differs in.
struct Difference {
  int64_t step = 0;
  std::string what;
  std::string recorded;
  std::string recomputed;
  double recorded_loss = 0.0;
  double recomputed_loss = 0.0;
};

std::optional<Difference> compare(const Recorded& then, const StepResult& now) {
  const std::string gradients = checksum_text(now.checksums->gradients);
  const std::string parameters = checksum_text(now.checksums->parameters);
  if (then.gradients == gradients && then.parameters == parameters) return std::nullopt;
  const bool in_gradients = then.gradients != gradients;
  return Difference{.step = now.step,
                    .what = in_gradients ? "gradient" : "parameters",
                    .recorded = in_gradients ? then.gradients : then.parameters,
                    .recomputed = in_gradients ? gradients : parameters,
                    .recorded_loss = then.loss,
                    .recomputed_loss = now.loss};
}

void print_table(const AuditArguments& arguments, int64_t num_compared,
                 const std::optional<Difference>& difference, int num_ranks) {
  ReportTable table;
  table.heading(arguments.run);
  table.row("recomputed", "steps " + std::to_string(arguments.from + 1) + " to " +
                              std::to_string(arguments.from + num_compared) + " on " +
                              format_plural(num_ranks, "rank"));
  if (difference) {
    table.row(
        "first difference",
        "step " + std::to_string(difference->step) + ", " + difference->what +
            (difference->what == "gradient" ? "" : " after the update (its gradient is equal)"));
    table.row("checksum recorded", difference->recorded);
    table.row("checksum recomputed", difference->recomputed);
    table.row("loss recorded", format_number(difference->recorded_loss));
    table.row("loss recomputed", format_number(difference->recomputed_loss));
  } else {
    table.row("result", "every step has the recorded bits");
  }
  table.print(std::cout);
}

void print_json(const AuditArguments& arguments, int64_t num_compared,
                const std::optional<Difference>& difference) {
  Json json = {{"run", arguments.run},
               {"from", arguments.from},
               {"to", arguments.to},
               {"steps_compared", num_compared},
               {"equal", !difference.has_value()}};
  if (difference) {
    json["first_difference"] = {{"step", difference->step},
                                {"what", difference->what},
                                {"recorded", difference->recorded},
                                {"recomputed", difference->recomputed}};
  }
  std::cout << json.dump() << '\n' << std::flush;
}

int audit(MpiEnvironment& mpi, AuditArguments arguments) {
  log::configure(mpi.rank(), mpi.world_size());
  const fs::path run = arguments.run;
  Config config;
  Record record;
  std::optional<fs::path> resume;
  mpi.run_on_all_ranks([&] {
    config = load_config(run / "config.toml").config;
    record = read_record(run);
    if (arguments.to == 0 && !record.empty()) arguments.to = record.rbegin()->first;
    check_stretch(record, arguments);
    resume = checkpoint_at(run, arguments.from);
    if (resume && mpi.rank() == 0) (void)open_checkpoint(*resume, Verify::kChecksums);
  });
  const std::string device = choose_device(mpi);
  std::optional<Session> session;
  mpi.run_on_all_ranks([&] { session = open_session(config, device); });
  Trainer trainer(mpi, std::move(*session),
                  {.run_dir = {}, .config_toml = {}, .resume = resume, .on_summed_gradients = {}});
  std::optional<Difference> difference;
  while (!difference && trainer.step() < arguments.to) {
    const StepResult now = trainer.run_step();  // Equal on all ranks: so is what follows.
    difference = compare(record.at(now.step), now);
  }
  const int64_t num_compared = trainer.step() - arguments.from;
  if (mpi.rank() == 0 && arguments.output == OutputFormat::kJson) {
    print_json(arguments, num_compared, difference);
  } else if (mpi.rank() == 0) {
    print_table(arguments, num_compared, difference, mpi.world_size());
  }
  return static_cast<int>(difference ? ExitCode::kOther : ExitCode::kDone);
}
}  // namespace

void add_audit_verb(CLI::App& app, std::function<int()>& action) {
  auto arguments = std::make_shared<AuditArguments>();
  auto* verb = app.add_subcommand(
      "audit",
      "Recompute steps of a run with parallel.shards, on any number of ranks, and name "
      "the first whose bits differ");
  verb->add_option("RUN", arguments->run, "Run directory")->required();
  verb->add_option("--from", arguments->from,
                   "Step of the checkpoint to begin after; 0: the start of the run")
      ->type_name("STEP")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--to", arguments->to, "Last step to recompute; without it the last recorded")
      ->type_name("STEP")
      ->check(CLI::PositiveNumber);
  verb->add_flag_callback(
      "--json", [arguments] { arguments->output = OutputFormat::kJson; },
      "Print one JSON object and nothing else");
  verb->footer(
      "Example:\n  trireme audit runs/emoji --from 500 --to 1000\nExit code 1: a step differs.");
  verb->callback([arguments, &action] {
    action = [arguments] {
      return run_reporting_as_rank([&](MpiEnvironment& mpi) { return audit(mpi, *arguments); });
    };
  });
}
}  // namespace trireme
