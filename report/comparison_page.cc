#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>

#include "report/html_page.h"
#include "report/run_charts.h"
#include "report/run_page.h"
#include "report/ticks.h"

namespace trireme {
namespace {
using Look = HtmlTable::Cell::Look;
using internal::Abscissa;
constexpr Abscissa kAbscissas[] = {Abscissa::kSteps, Abscissa::kSamples, Abscissa::kSeconds};

// The names of the runs where these tell them apart, else their folders', else whole paths.
std::vector<std::string> labels_of(const std::vector<ReportedRun>& runs) {
  std::vector<std::string> names, folders, paths;
  for (const auto& run : runs) {
    names.push_back(run.facts.name);
    folders.push_back(run.record.folder.filename().string());
    paths.push_back(run.record.folder.string());
  }
  for (const auto& labels : {names, folders}) {
    if (std::set<std::string>(labels.begin(), labels.end()).size() == runs.size()) return labels;
  }
  return paths;
}

HtmlTable summary_table(const std::vector<ReportedRun>& runs,
                        const std::vector<std::string>& labels) {
  HtmlTable table{.header = {"run", "steps", "samples", "validation loss", "lowest", "at step",
                             "training time"},
                  .rows = {}};
  for (size_t i = 0; i < runs.size(); ++i) {
    const RunRecord& run = runs[i].record;
    const auto best = internal::smallest_of(run.eval, "val_loss");
    const auto elapsed = run.elapsed();
    const auto number = [](double value) {
      return HtmlTable::Cell{format_figure(value), Look::kNumber};
    };
    table.rows.push_back(
        {.cells = {{labels[i], Look::kStrong},
                   number(static_cast<double>(run.last_step())),
                   number(internal::last_of(run.train.column("samples"))),
                   number(internal::last_of(run.eval.column("val_loss"))),
                   number(best.value),
                   number(best.step),
                   {elapsed.empty() ? "–" : format_seconds(elapsed.back()), Look::kNumber}}});
  }
  return table;
}

// Keys whose values are not the same in all runs; a key that a run lacks counts as different.
HtmlTable difference_table(const std::vector<ReportedRun>& runs,
                           const std::vector<std::string>& labels) {
  HtmlTable table{.header = {"key"}, .rows = {}};
  table.header.insert(table.header.end(), labels.begin(), labels.end());
  std::vector<std::string> order;
  std::map<std::string, std::vector<std::string>> values;
  for (size_t i = 0; i < runs.size(); ++i) {
    for (const auto& key : runs[i].facts.keys) {
      auto& row = values[key.name];
      if (row.empty()) {
        row.resize(runs.size(), "–");
        order.push_back(key.name);
      }
      row[i] = key.value;
    }
  }
  for (const auto& name : order) {
    const auto& row = values[name];
    // Where a run lies decides nothing.
    const bool is_same = std::ranges::all_of(row, [&](const auto& v) { return v == row.front(); });
    if (is_same || name == "run.dir" || name == "run.name") continue;
    HtmlTable::Row line{.cells = {{name, Look::kCode}}};
    for (const auto& value : row) line.cells.push_back({value, Look::kCode});
    table.rows.push_back(std::move(line));
  }
  return table;
}

std::string along(Abscissa abscissa) {
  switch (abscissa) {
    case Abscissa::kSteps:
      return ", by steps";
    case Abscissa::kSamples:
      return ", by samples";
    case Abscissa::kSeconds:
      return ", by time";
  }
  return "";
}

enum class Kind { kTrain, kEval };

// One column of every run in one chart; no chart where no run has it.
void add_chart(const std::vector<ReportedRun>& runs, const std::vector<std::string>& labels,
               Kind kind, const std::string& column, Abscissa abscissa, const std::string& title,
               std::vector<Chart>& charts) {
  Chart chart{.title = title,
              .note = {},
              .x = internal::axis_of(abscissa),
              .y = {.format = internal::format_of(column)}};
  for (size_t i = 0; i < runs.size(); ++i) {
    const RunRecord& run = runs[i].record;
    const ChartColour colour{.index = static_cast<int>(i)};
    if (kind == Kind::kEval && run.eval.has(column)) {
      chart.series.push_back(internal::evaluation_series(run, column, labels[i], abscissa, colour));
    } else if (kind == Kind::kTrain) {
      // Means only: the single steps of several runs hide each other.
      auto series = internal::training_series(run, column, labels[i], abscissa, colour);
      if (!series.empty()) chart.series.push_back(std::move(series.back()));
    }
  }
  if (chart.series.empty()) return;
  chart.y.scale = internal::scale_for(chart.series);
  charts.push_back(std::move(chart));
}

// Each band has a chart of its own here, since its lines are runs.
std::string title_with_band(const std::string& column) {
  const std::string title = internal::title_of(column);
  const auto band = internal::band_of(column);
  return band ? title + ", band " + std::to_string(band->number) : title;
}

void add_curves(const std::vector<ReportedRun>& runs, const std::vector<std::string>& labels,
                HtmlPage& page) {
  std::set<std::string> eval_columns, train_columns;
  for (const auto& run : runs) {
    for (const auto& [name, column] : run.record.eval.columns) eval_columns.insert(name);
    for (const auto& [name, column] : run.record.train.columns) train_columns.insert(name);
  }
  constexpr std::pair<const char*, Kind> kMain[] = {
      {"val_loss", Kind::kEval}, {"val_loss_ema", Kind::kEval}, {"loss", Kind::kTrain}};
  for (const auto& [column, kind] : kMain) {
    std::vector<Chart> charts;
    const std::string title = kind == Kind::kTrain ? "Training loss" : internal::title_of(column);
    for (const Abscissa abscissa : kAbscissas)
      add_chart(runs, labels, kind, column, abscissa, title + along(abscissa), charts);
    if (charts.empty()) continue;
    page.section(title);
    page.charts(charts);
  }
  std::vector<Chart> others;
  for (const auto& name : eval_columns) {
    if (name != "val_loss" && name != "val_loss_ema" && name != "val_samples")
      add_chart(runs, labels, Kind::kEval, name, Abscissa::kSteps, title_with_band(name), others);
  }
  for (const auto& name : train_columns) {
    if (name != "loss" && name != "samples" && name != "epoch")
      add_chart(runs, labels, Kind::kTrain, name, Abscissa::kSteps, internal::title_of(name),
                others);
  }
  if (others.empty()) return;
  page.section("Other measurements");
  page.charts(others);
}
// What each run drew last.
void add_pictures(const std::vector<ReportedRun>& runs, const std::vector<std::string>& labels,
                  HtmlPage& page) {
  constexpr size_t kPicturesMax = 12;
  std::vector<HtmlPicture> pictures;
  for (size_t i = 0; i < runs.size() && pictures.size() < kPicturesMax; ++i) {
    if (runs[i].record.pictures.empty()) continue;
    const auto& [step, file] = runs[i].record.pictures.back();
    pictures.push_back(
        {.png = internal::bytes_of(file),
         .caption = labels[i] + ", step " + format_figure(static_cast<double>(step))});
  }
  if (pictures.empty()) return;
  page.section("Samples");
  page.pictures(pictures);
}
}  // namespace

std::string comparison_page(const std::vector<ReportedRun>& runs) {
  const auto labels = labels_of(runs);
  HtmlPage page("Comparison of " + std::to_string(runs.size()) + " runs", "", "");
  page.section("Summary");
  page.table(summary_table(runs, labels));
  page.section("What differs");
  const HtmlTable differences = difference_table(runs, labels);
  differences.rows.empty() ? page.paragraph("The configurations are the same.")
                           : page.table(differences);
  add_curves(runs, labels, page);
  add_pictures(runs, labels, page);
  return page.text();
}
}  // namespace trireme
