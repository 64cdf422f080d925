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
#include "trainer/model_agreement.h"
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
struct Record {
  std::map<int64_t, Recorded> steps;
  // run.steps from each start on, by the step before it: it may grow at a resume, and with it the
  // schedule of the learning rate.
  std::map<int64_t, int64_t> lengths;
};

Record read_record(const fs::path& run) {
  const fs::path file = run / "metrics.jsonl";
  std::ifstream stream(file);
  if (!stream) throw InputError(file.string() + " cannot be read. Give a run directory.");
  Record record;
  for (std::string line; std::getline(stream, line);) {
    const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) continue;
    const int64_t step = json["step"].get<int64_t>();
    const std::string kind = json.value("kind", "");
    const std::string what = json.value("what", "");
    if (kind == "event" && (what == "start" || what == "resume") && json.contains("steps")) {
      record.lengths[step] = json["steps"].get<int64_t>();
    }
    if (kind != "train") continue;
    const bool has_loss = json.contains("loss") && json["loss"].is_number();
    record.steps[step] = {.gradients = json.value("grad_checksum", ""),
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
    const auto found = record.steps.find(step);
    if (found == record.steps.end() || found->second.gradients.empty() ||
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

// Steps after `from` up to `to` that one configuration made.
struct Stretch {
  int64_t from = 0;
  int64_t to = 0;
  Config config;
  std::optional<fs::path> resume;
};

std::vector<Stretch> stretches_of(const AuditArguments& arguments, const Config& config,
                                  const Record& record) {
  Stretch stretch{.from = arguments.from,
                  .to = arguments.to,
                  .config = config,
                  .resume = checkpoint_at(arguments.run, arguments.from)};
  std::vector<Stretch> stretches;
  for (const auto& [begin, length] : record.lengths) {
    if (begin >= arguments.to) break;
    auto& run = stretch.config.run;
    const bool is_other = !(run.epochs == 0.0 && run.steps == length);
    if (begin > arguments.from && is_other) {
      stretches.push_back(stretch);
      stretches.back().to = begin;
      stretch.from = begin;
      try {
        stretch.resume = checkpoint_at(arguments.run, begin);
      } catch (const UsageError&) {
        throw UsageError(arguments.run + ": the run's steps became " + std::to_string(length) +
                         " after step " + std::to_string(begin) +
                         ", and the checkpoint of that step "
                         "is gone. Audit --to " +
                         std::to_string(begin) + ", or --from a later checkpoint.");
      }
    }
    run.steps = length;
    run.epochs = 0.0;
  }
  stretches.push_back(stretch);
  return stretches;
}

// The first step of a stretch that differs. Collective.
std::optional<Difference> recompute(MpiEnvironment& mpi, const Stretch& stretch,
                                    const std::string& device, const Record& record) {
  std::optional<Session> session;
  mpi.run_on_all_ranks([&] {
    if (stretch.resume && mpi.rank() == 0) {
      (void)open_checkpoint(*stretch.resume, Verify::kChecksums);
    }
    session = open_session(stretch.config, device);
  });
  agree_on_session(mpi, *session);
  Trainer trainer(
      mpi, std::move(*session),
      {.run_dir = {}, .config_toml = {}, .resume = stretch.resume, .on_summed_gradients = {}});
  std::optional<Difference> difference;
  while (!difference && trainer.step() < stretch.to) {
    const StepResult now = trainer.run_step();  // Equal on all ranks: so is what follows.
    difference = compare(record.steps.at(now.step), now);
  }
  return difference;
}

int audit(MpiEnvironment& mpi, AuditArguments arguments) {
  log::configure(mpi.rank(), mpi.world_size());
  Record record;
  std::vector<Stretch> stretches;
  mpi.run_on_all_ranks([&] {
    const Config config = load_config(fs::path(arguments.run) / "config.toml").config;
    record = read_record(arguments.run);
    if (arguments.to == 0 && !record.steps.empty()) arguments.to = record.steps.rbegin()->first;
    check_stretch(record, arguments);
    stretches = stretches_of(arguments, config, record);
  });
  const std::string device = choose_device(mpi);
  std::optional<Difference> difference;
  for (const Stretch& stretch : stretches) {
    if (!difference) difference = recompute(mpi, stretch, device, record);
  }
  const int64_t num_compared = (difference ? difference->step : arguments.to) - arguments.from;
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
