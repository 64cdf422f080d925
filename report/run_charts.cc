#include "report/run_charts.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <regex>
#include <set>

#include "report/metric_reference.h"

namespace trireme::internal {
namespace {
constexpr size_t kPointsMax = 400;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
using Mark = ChartSeries::Mark;

// What the charts below draw by name, and what is no measurement.
const std::set<std::string> kKnown = {
    "loss",         "lr",           "grad_norm",   "images_per_second",    "step_seconds",
    "data_seconds", "epoch",        "samples",     "comm_exposed_seconds", "val_loss",
    "noise_scale",  "val_loss_ema", "val_samples", "overfit_gap"};

Chart loss_chart(const RunRecord& run) {
  Chart chart{.title = "Loss",
              .note = {},
              .x = axis_of(Abscissa::kSteps),
              .series = training_series(run, "loss", "training", Abscissa::kSteps, {}),
              .size = Chart::Size::kWide};
  if (run.eval.has("val_loss")) {
    chart.series.push_back(
        evaluation_series(run, "val_loss", "validation", Abscissa::kSteps, {.index = 1}));
  }
  if (run.eval.has("val_loss_ema")) {
    chart.series.push_back(evaluation_series(run, "val_loss_ema", "validation, averaged weights",
                                             Abscissa::kSteps, {.index = 2}));
  }
  if (chart.series.size() > 1 && reach_of(run) > 0) {
    chart.note = "Training: each step (faint) and its mean over " +
                 std::to_string(2 * reach_of(run) + 1) +
                 " steps. Validation: held-out samples with the same noise every time.";
  }
  chart.y.scale = scale_for(chart.series);
  return chart;
}

// A column of training on its own.
Chart training_chart(const RunRecord& run, const std::string& column) {
  Chart chart{.title = title_of(column),
              .note = note_of("train", column),
              .x = axis_of(Abscissa::kSteps),
              .y = {.format = format_of(column)},
              .series = training_series(run, column, "", Abscissa::kSteps, {})};
  chart.y.scale = scale_for(chart.series);
  return chart;
}

// A column of evaluations on its own.
Chart evaluation_chart(const RunRecord& run, const std::string& column, int hue) {
  Chart chart{.title = title_of(column),
              .note = note_of("eval", column),
              .x = axis_of(Abscissa::kSteps),
              .series = {evaluation_series(run, column, "", Abscissa::kSteps, {.index = hue})}};
  chart.y.scale = scale_for(chart.series);
  return chart;
}

// A chart for each group of bands.
void add_band_charts(const RunRecord& run, std::vector<Chart>& charts,
                     std::set<std::string>& drawn) {
  std::map<std::string, std::map<int, std::string>> groups;
  for (const auto& [name, column] : run.eval.columns) {
    if (const auto band = band_of(name)) groups[band->name][band->number] = name;
  }
  for (const auto& [name, bands] : groups) {
    const std::string general = name + "_band_0";
    Chart chart{.title = metric_info("eval", general) != nullptr
                             ? title_of(general)
                             : title_of(name) + " by timestep band",
                .note = "Band 0 has the least noise.",
                .x = axis_of(Abscissa::kSteps)};
    const auto last = std::max<double>(1, static_cast<double>(bands.size() - 1));
    double place = 0;
    for (const auto& [band, column] : bands) {
      const int colour = static_cast<int>(std::lround(7.0 * place++ / last));
      chart.series.push_back(
          evaluation_series(run, column, "band " + std::to_string(band), Abscissa::kSteps,
                            {.palette = ChartColour::Palette::kRamp, .index = colour}));
      drawn.insert(column);
    }
    chart.y.scale = scale_for(chart.series);
    charts.push_back(std::move(chart));
  }
}

Chart step_time_chart(const RunRecord& run) {
  Chart chart{.title = "Time a step",
              .note = "Means; without evaluation and checkpoint.",
              .x = axis_of(Abscissa::kSteps),
              .y = {.low = 0.0, .format = ChartAxis::Format::kSeconds}};
  constexpr std::pair<const char*, const char*> kParts[] = {
      {"step_seconds", "whole step"},
      {"data_seconds", "waiting for data"},
      {"comm_exposed_seconds", "exposed communication"}};
  int colour = 0;
  for (const auto& [column, name] : kParts) {
    auto series = training_series(run, column, name, Abscissa::kSteps, {.index = colour++});
    if (series.empty()) continue;
    series.back().mark = Mark::kLine;
    chart.series.push_back(std::move(series.back()));
  }
  return chart;
}

void add_other_charts(const RunRecord& run, std::vector<Chart>& charts,
                      const std::set<std::string>& drawn) {
  for (const auto& [name, column] : run.eval.columns) {
    if (kKnown.contains(name) || drawn.contains(name)) continue;
    charts.push_back(evaluation_chart(run, name, 1));
  }
  for (const auto& [name, column] : run.train.columns) {
    if (!kKnown.contains(name)) charts.push_back(training_chart(run, name));
  }
}
}  // namespace

ChartAxis axis_of(Abscissa abscissa) {
  switch (abscissa) {
    case Abscissa::kSteps:
      return {.label = "steps", .format = ChartAxis::Format::kCount};
    case Abscissa::kSamples:
      return {.label = "samples", .format = ChartAxis::Format::kCount};
    case Abscissa::kSeconds:
      return {.label = "training time", .format = ChartAxis::Format::kSeconds};
  }
  return {};
}

std::vector<double> places(const RunRecord& run, const MetricTable& table, Abscissa abscissa) {
  if (abscissa == Abscissa::kSteps) return table.steps;
  auto values = abscissa == Abscissa::kSamples ? run.train.column("samples") : run.elapsed();
  if (&table == &run.train) return values;
  // An evaluation stands where the training step of its number ended.
  std::vector<double> result;
  for (const double step : table.steps) {
    const auto after = std::ranges::upper_bound(run.train.steps, step);
    const auto row = after - run.train.steps.begin();
    result.push_back(row == 0 ? 0.0
                     : static_cast<size_t>(row) <= values.size()
                         ? values[static_cast<size_t>(row - 1)]
                         : kNan);
  }
  return result;
}

int64_t reach_of(const RunRecord& run) { return static_cast<int64_t>(run.train.steps.size() / 80); }

std::vector<ChartSeries> training_series(const RunRecord& run, const std::string& column,
                                         const std::string& name, Abscissa abscissa,
                                         ChartColour colour) {
  const auto& values = run.train.column(column);
  const auto x = places(run, run.train, abscissa);
  if (values.empty() || x.size() != values.size()) return {};
  const ChartSeries each{.name = name, .x = x, .y = values, .mark = Mark::kLine, .colour = colour};
  if (reach_of(run) == 0) return {each};
  ChartSeries faint = thin_out(each, kPointsMax);
  faint.name.clear();
  faint.mark = Mark::kFaint;
  ChartSeries mean = thin_out(smooth(each, reach_of(run)), kPointsMax);
  mean.low.clear();
  mean.high.clear();
  return {std::move(faint), std::move(mean)};
}

ChartSeries evaluation_series(const RunRecord& run, const std::string& column,
                              const std::string& name, Abscissa abscissa, ChartColour colour) {
  ChartSeries series{.name = name,
                     .x = places(run, run.eval, abscissa),
                     .y = run.eval.column(column),
                     .mark = Mark::kLineAndPoints,
                     .colour = colour};
  if (series.x.size() > kPointsMax / 4) {
    series.mark = Mark::kLine;
    series = thin_out(series, kPointsMax);
    series.low.clear();
    series.high.clear();
  }
  return series;
}

ChartAxis::Scale scale_for(const std::vector<ChartSeries>& series) {
  double low = std::numeric_limits<double>::infinity();
  double high = 0.0;
  for (const auto& one : series) {
    if (one.mark == Mark::kFaint) continue;
    for (const double value : one.y) {
      if (!std::isfinite(value)) continue;
      low = std::min(low, value);
      high = std::max(high, value);
    }
  }
  return low > 0 && high > 30 * low ? ChartAxis::Scale::kLog10 : ChartAxis::Scale::kLinear;
}

std::vector<Chart> charts_of(const RunRecord& run) {
  std::vector<Chart> charts = {loss_chart(run)};
  std::set<std::string> drawn;
  add_band_charts(run, charts, drawn);
  if (run.eval.has("overfit_gap")) charts.push_back(evaluation_chart(run, "overfit_gap", 4));
  if (run.train.has("lr")) {
    Chart chart{.title = "Learning rate", .x = axis_of(Abscissa::kSteps), .y = {.low = 0.0}};
    ChartSeries series{.name = "", .x = run.train.steps, .y = run.train.column("lr")};
    series = thin_out(series, kPointsMax);
    series.low.clear();
    series.high.clear();
    chart.series = {std::move(series)};
    charts.push_back(std::move(chart));
  }
  for (const char* name : {"grad_norm", "noise_scale", "images_per_second"}) {
    if (run.train.has(name)) charts.push_back(training_chart(run, name));
  }
  if (run.train.has("step_seconds")) charts.push_back(step_time_chart(run));
  add_other_charts(run, charts, drawn);
  return charts;
}

std::string title_of(const std::string& column) {
  for (const char* kind : {"eval", "train"}) {
    if (const MetricInfo* info = metric_info(kind, column)) return std::string(info->title);
  }
  std::string title = column;
  std::ranges::replace(title, '_', ' ');
  if (!title.empty() && title[0] >= 'a' && title[0] <= 'z')
    title[0] = static_cast<char>(title[0] - 'a' + 'A');
  return title;
}

std::optional<TimestepBand> band_of(const std::string& column) {
  static const std::regex kBand("(.+)_band_([0-9]{1,6})");
  std::smatch match;
  if (!std::regex_match(column, match, kBand)) return std::nullopt;
  return TimestepBand{.name = match[1], .number = std::stoi(match[2])};
}

std::string note_of(std::string_view kind, const std::string& column) {
  const MetricInfo* info = metric_info(kind, column);
  return info == nullptr ? "" : std::string(info->meaning);
}

ChartAxis::Format format_of(const std::string& column) {
  return column.ends_with("_seconds") ? ChartAxis::Format::kSeconds : ChartAxis::Format::kNumber;
}

std::string bytes_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

double last_of(const std::vector<double>& column) {
  const auto found = std::find_if(column.rbegin(), column.rend(),
                                  [](double value) { return std::isfinite(value); });
  return found == column.rend() ? kNan : *found;
}

Best smallest_of(const MetricTable& table, const std::string& column) {
  Best best{.value = kNan, .step = kNan};
  const auto& values = table.column(column);
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i]) && !(values[i] >= best.value))
      best = {.value = values[i], .step = table.steps[i]};
  }
  return best;
}
}  // namespace trireme::internal
