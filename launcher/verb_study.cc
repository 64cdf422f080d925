#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/formatted.h"
#include "launcher/report_table.h"
#include "launcher/study_verb.h"
#include "launcher/verbs.h"
#include "study/fit_report.h"
#include "study/points.h"
#include "study/tradeoff_fit.h"

namespace trireme {
namespace {
struct FitArguments {
  std::string file;
  std::string samples_column = "samples";
  std::vector<std::string> where;
  OutputFormat format = OutputFormat::kTable;
};

std::string noise_scale_text(const TradeoffFit& fit) {
  switch (fit.identified) {
    case TradeoffFit::Identified::kTooHigh:
      return "unknown: the critical batch lies above these batches";
    case TradeoffFit::Identified::kTooLow:
      return "unknown: the critical batch lies below these batches";
    default:
      return with_interval(fit.curve.noise_scale, fit.noise_scale_interval) +
             " samples: the critical batch";
  }
}

void print_fit(const Points& points, const TradeoffFit& fit) {
  ReportTable table;
  table.heading(format_plural(points.num_runs, "run") + " at " +
                format_plural(static_cast<int64_t>(points.batches.size()), "batch size"));
  for (const auto& batch : points.batches) {
    const double mean = mean_of(batch.samples);
    const double fitted = fit.curve.samples_at(batch.batch);
    const std::string miss = formatted("%+.1f %%", 100.0 * (fitted / mean - 1.0));
    table.row("batch " + format_rounded(batch.batch),
              format_rounded(mean) + " samples, " + format_rounded(mean / batch.batch) +
                  " steps, mean of " +
                  format_plural(static_cast<int64_t>(batch.samples.size()), "run") + "; fit " +
                  format_rounded(fitted) + " (" + miss + ")");
  }
  table.heading("(S / S_min - 1)(E / E_min - 1) = 1, with 95 % intervals over runs");
  table.row("E_min", with_interval(fit.curve.e_min, fit.e_min_interval) + " samples");
  table.row("noise scale", noise_scale_text(fit));
  if (fit.identified == TradeoffFit::Identified::kYes) {
    table.row("S_min", format_rounded(fit.curve.s_min()) + " steps");
  }
  table.heading("mind");
  for (const auto& note : fit_notes(points, fit)) table.note("- " + note);
  table.print(std::cout);
}

int run_fit(const FitArguments& arguments) {
  PointsQuery query{.samples_column = arguments.samples_column, .where = {}};
  for (const auto& text : arguments.where) query.where.push_back(parse_column_filter(text));
  const Points points = read_points(arguments.file, query);
  const TradeoffFit fit = fit_tradeoff(points.batches);
  if (arguments.format == OutputFormat::kJson) {
    std::cout << fit_to_json(points, fit).dump(2) << '\n';
  } else {
    print_fit(points, fit);
  }
  return static_cast<int>(ExitCode::kDone);
}

void add_fit(CLI::App& study, std::function<int()>& action) {
  auto arguments = std::make_shared<FitArguments>();
  auto* verb = study.add_subcommand("fit", "Fit the trade-off of steps and samples to points");
  verb->add_option("POINTS", arguments->file, "CSV file, a run a line, with columns batch, samples")
      ->required();
  verb->add_option("--samples-column", arguments->samples_column,
                   "Column that holds a run's samples to target")
      ->type_name("NAME")
      ->capture_default_str();
  verb->add_option("--where", arguments->where,
                   "Only lines whose column has the value, or with != has not; repeatable")
      ->type_name("COLUMN=VALUE")
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  verb->add_flag_callback(
      "--json", [arguments] { arguments->format = OutputFormat::kJson; }, "JSON, and nothing else");
  verb->footer(
      "Example:\n  trireme study fit study/published/mlperf_rcp_diffusion.csv --samples-column "
      "samples_to_target \\\n    --where benchmark=flux1 --where round=6.0.0");
  verb->callback([arguments, &action] { action = [arguments] { return run_fit(*arguments); }; });
}
}  // namespace

void add_study_verb(CLI::App& app, std::function<int()>& action) {
  auto* verb = app.add_subcommand("study", "Large-batch scaling studies");
  verb->require_subcommand(0, 1);
  add_study_options(*verb, action);
  add_fit(*verb, action);
}
}  // namespace trireme
