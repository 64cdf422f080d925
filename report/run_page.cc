#include "report/run_page.h"

#include <algorithm>
#include <cmath>
#include <system_error>

#include "core/formatted.h"
#include "report/html_page.h"
#include "report/run_charts.h"
#include "report/ticks.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;
using Cell = HtmlTable::Cell;
using Look = Cell::Look;
using internal::Abscissa;
constexpr size_t kPicturesMax = 12;
constexpr uint64_t kPictureBytesMax = uint64_t{24} << 20;  // Together.

std::string count_text(double value) { return format_figure(value); }

std::string planned_steps(const RunFacts& facts) {
  for (const auto& key : facts.keys) {
    if (key.name == "run.steps" && key.value != "0") return key.value;
  }
  return "";
}

std::string status_of(const ReportedRun& run) {
  const std::string step = "step " + count_text(static_cast<double>(run.record.last_step()));
  if (run.record.outcome == "done") {
    const auto& events = run.record.events;
    return !events.empty() && events.back().what == "early_stop" ? "stopped early at " + step
                                                                 : "finished";
  }
  if (run.record.outcome == "stopped") return "stopped at " + step;
  if (run.record.outcome == "diverged") return "diverged after " + step;
  return "under way or interrupted at " + step;
}

std::string change_text(const std::vector<double>& column) {
  const auto first = std::ranges::find_if(column, [](double v) { return std::isfinite(v); });
  const double last = internal::last_of(column);
  if (first == column.end() || column.size() < 2 || *first == 0) return "";
  const double change = 100.0 * (last - *first) / std::abs(*first);
  return (change < 0 ? "−" : "+") + format_figure(std::round(std::abs(change) * 10) / 10) +
         " % since the first";
}

double median(std::vector<double> values) {
  std::erase_if(values, [](double value) { return !std::isfinite(value); });
  if (values.empty()) return std::nan("");
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void add_score_figures(const RunRecord& run, std::vector<KeyFigure>& figures) {
  for (const auto& [name, column] : run.eval.columns) {
    const bool is_score =
        name == "fid" || name == "kid" || name == "clip_score" || name == "latent_frechet";
    if (is_score && figures.size() < 9)
      figures.push_back({format_figure(internal::last_of(column)), internal::title_of(name), ""});
  }
}

std::vector<KeyFigure> figures_of(const ReportedRun& run) {
  const RunRecord& record = run.record;
  std::vector<KeyFigure> figures;
  for (const char* name : {"val_loss", "val_loss_ema"}) {
    if (!record.eval.has(name)) continue;
    const auto best = internal::smallest_of(record.eval, name);
    const auto& column = record.eval.column(name);
    figures.push_back(
        {format_figure(internal::last_of(column)), internal::title_of(name), change_text(column)});
    if (best.value < internal::last_of(column)) {
      figures.push_back({format_figure(best.value), "lowest " + std::string(name),
                         "at step " + count_text(best.step)});
    }
  }
  add_score_figures(record, figures);
  if (record.train.steps.empty()) return figures;
  const auto loss = internal::training_series(record, "loss", "", Abscissa::kSteps, {});
  if (!loss.empty()) {
    figures.push_back({format_figure(internal::last_of(loss.back().y)), "Training loss",
                       internal::reach_of(record) > 0 ? "mean of the last steps" : "last step"});
  }
  const std::string planned = planned_steps(run.facts);
  figures.push_back({count_text(record.train.steps.back()), "Steps",
                     planned.empty() ? "" : "of " + count_text(std::stod(planned))});
  figures.push_back({count_text(internal::last_of(record.train.column("samples"))), "Samples",
                     format_figure(internal::last_of(record.train.column("epoch"))) + " epochs"});
  figures.push_back({format_figure(median(record.train.column("images_per_second"))),
                     "Images a second", "median step"});
  const auto elapsed = record.elapsed();
  if (!elapsed.empty()) {
    figures.push_back(
        {format_seconds(elapsed.back()), "Training time", "without evaluation and checkpoints"});
  }
  return figures;
}

// The first, the last, and others evenly between, as many as fit.
void add_pictures(const RunRecord& run, HtmlPage& page) {
  uint64_t largest = 1;
  for (const auto& [step, file] : run.pictures) {
    std::error_code error;
    const auto size = fs::file_size(file, error);
    if (!error) largest = std::max<uint64_t>(largest, size);
  }
  const size_t room = std::min<size_t>(
      {run.pictures.size(), kPicturesMax, static_cast<size_t>(kPictureBytesMax / largest)});
  if (room == 0) return;
  page.section("Samples");
  page.paragraph(
      "The same prompts and the same noise at every evaluation: only the weights differ." +
      (room < run.pictures.size()
           ? " " + std::to_string(room) + " of " + std::to_string(run.pictures.size()) +
                 " pictures; the others are in samples/."
           : std::string()));
  std::vector<HtmlPicture> pictures;
  for (size_t i = 0; i < room; ++i) {
    const size_t at =
        room == 1 ? run.pictures.size() - 1 : i * (run.pictures.size() - 1) / (room - 1);
    const auto& [step, file] = run.pictures[at];
    pictures.push_back({.png = internal::bytes_of(file),
                        .caption = "Step " + count_text(static_cast<double>(step))});
  }
  page.pictures(pictures);
}

void add_times(const RunRecord& run, HtmlPage& page) {
  if (run.phases.empty()) return;
  page.section("Where the time went");
  BarChart chart{.title = "The main thread of a rank, mean over ranks",
                 .parts = {},
                 .bars = {},
                 .x = {.format = ChartAxis::Format::kSeconds}};
  BarChart::Bar bar{.name = "in all", .values = {}};
  HtmlTable table{.header = {"phase", "share", "min", "mean", "max"}, .rows = {}};
  for (const auto& phase : run.phases) {
    chart.parts.push_back(phase.name);
    bar.values.push_back(phase.mean);
    const double share = run.wall_seconds > 0 ? 100.0 * phase.mean / run.wall_seconds : 0.0;
    HtmlTable::Row row{.cells = {{phase.name}, {formatted("%.1f %%", share), Look::kNumber}}};
    for (const double seconds : {phase.min, phase.mean, phase.max})
      row.cells.push_back({format_seconds(seconds), Look::kNumber});
    table.rows.push_back(std::move(row));
  }
  chart.bars.push_back(std::move(bar));
  page.bars({chart});
  if (!run.notes.empty()) page.list(run.notes);
  page.table(table);
}

HtmlTable evaluation_table(const MetricTable& eval) {
  HtmlTable table{.header = {"step"}, .rows = {}};
  for (const auto& [name, column] : eval.columns) table.header.push_back(name);
  for (size_t i = 0; i < eval.steps.size(); ++i) {
    HtmlTable::Row row{.cells = {{count_text(eval.steps[i]), Look::kNumber}}};
    for (const auto& [name, column] : eval.columns)
      row.cells.push_back({format_figure(column[i]), Look::kNumber});
    table.rows.push_back(std::move(row));
  }
  return table;
}

void add_configuration(const RunFacts& facts, HtmlPage& page) {
  if (facts.keys.empty()) return;
  page.section("Configuration");
  HtmlTable changed{.header = {"key", "value", "default"}, .rows = {}};
  HtmlTable all = changed;
  for (const auto& key : facts.keys) {
    const HtmlTable::Row row{
        .cells = {{key.name, Look::kCode},
                  {key.value, Look::kCode},
                  {key.default_value, Look::kMuted}},
        .look = key.is_default ? HtmlTable::Row::Look::kPlain : HtmlTable::Row::Look::kMarked};
    all.rows.push_back(row);
    if (key.is_default) continue;
    changed.rows.push_back(row);
    changed.rows.back().look = HtmlTable::Row::Look::kPlain;
  }
  page.paragraph(std::to_string(changed.rows.size()) + " of " + std::to_string(all.rows.size()) +
                 " keys differ from their defaults.");
  page.table(changed);
  page.folded_table("All keys, those that differ marked", all);
}

void add_data(const RunFacts& facts, HtmlPage& page) {
  if (facts.data.empty()) return;
  page.section("Data");
  for (const auto& source : facts.data) {
    HtmlTable table{.header = {source.file, ""}, .rows = {}};
    for (const auto& [name, value] : source.attributes)
      table.rows.push_back({.cells = {{name, Look::kCode}, {value}}});
    if (!source.problem.empty())
      table.rows.push_back({.cells = {{"not read", Look::kMuted}, {source.problem}}});
    page.table(table);
  }
}

void add_events(const RunRecord& run, HtmlPage& page) {
  if (run.events.empty() && run.num_unreadable == 0) return;
  page.section("Events");
  HtmlTable table{.header = {"step", "event", "details"}, .rows = {}};
  for (const auto& event : run.events) {
    std::string details;
    for (const auto& [name, value] : event.details)
      details += (details.empty() ? "" : ", ") + name + " " + value;
    table.rows.push_back({.cells = {{count_text(static_cast<double>(event.step)), Look::kNumber},
                                    {event.what, Look::kStrong},
                                    {details}}});
  }
  page.table(table);
  if (run.num_unreadable > 0) {
    const bool is_one = run.num_unreadable == 1;
    page.paragraph(std::to_string(run.num_unreadable) + (is_one ? " line" : " lines") +
                   " of metrics.jsonl could not be read and " + (is_one ? "was" : "were") +
                   " passed over.");
  }
}

void add_environment(const RunFacts& facts, HtmlPage& page) {
  if (facts.environment.empty()) return;
  page.section("Environment");
  const auto table_of = [](const auto& facts_of) {
    HtmlTable table{.header = {}, .rows = {}};
    for (const auto& [name, value] : facts_of)
      table.rows.push_back({.cells = {{name, Look::kMuted}, {value}}});
    return table;
  };
  page.table(table_of(facts.environment));
  if (!facts.environment_details.empty())
    page.folded_table("Everything recorded", table_of(facts.environment_details));
}
}  // namespace

std::string run_page(const ReportedRun& run) {
  HtmlPage page(run.facts.name, status_of(run), run.facts.summary);
  page.key_figures(figures_of(run));
  page.section("Curves");
  page.charts(internal::charts_of(run.record));
  if (!run.record.eval.steps.empty())
    page.folded_table("Evaluations as a table", evaluation_table(run.record.eval));
  add_pictures(run.record, page);
  add_times(run.record, page);
  add_configuration(run.facts, page);
  add_data(run.facts, page);
  add_environment(run.facts, page);
  add_events(run.record, page);
  return page.text();
}
}  // namespace trireme
