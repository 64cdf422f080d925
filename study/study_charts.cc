#include "study/study_charts.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

namespace trireme {
namespace {
using Mark = ChartSeries::Mark;
using Scale = ChartAxis::Scale;
constexpr size_t kNumCurvePoints = 64;
constexpr size_t kNumLossPoints = 200;

std::vector<double> spread(double low, double high) {
  std::vector<double> values;
  for (size_t i = 0; i < kNumCurvePoints; ++i) {
    const double share = static_cast<double>(i) / static_cast<double>(kNumCurvePoints - 1);
    values.push_back(low * std::pow(high / low, share));
  }
  return values;
}

double finite_or(double value, double other) { return std::isfinite(value) ? value : other; }

// One colour of the ramp a line, by batch.
void add_ramp(std::map<int64_t, ChartSeries>& lines, Chart& chart) {
  int index = 0;
  for (auto& [batch, line] : lines) {
    line.colour = {.palette = ChartColour::Palette::kRamp, .index = index++};
    chart.series.push_back(std::move(line));
  }
}

}  // namespace

Chart StudyCharts::tradeoff(Quantity quantity) const {
  const bool is_steps = quantity == Quantity::kSteps;
  Chart chart{.title = is_steps ? "Steps to target" : "Samples to target",
              .note = "Mean of the seeds at the best learning rate, with 95 % interval.",
              .x = {.label = "global batch", .scale = Scale::kLog2},
              .y = {.label = is_steps ? "steps" : "samples", .scale = Scale::kLog10}};
  ChartSeries points{.name = "measured", .x = {}, .y = {}, .mark = Mark::kPoints};
  for (const auto& batch : analysis_.batches) {
    if (!batch.samples || !is_first_variant(batch.variant)) continue;
    const double scale = is_steps ? 1.0 / static_cast<double>(batch.batch) : 1.0;
    const double mean = batch.samples->mean * scale;
    points.x.push_back(static_cast<double>(batch.batch));
    points.y.push_back(mean);
    // An interval that reaches below 0 cannot be drawn on a logarithm.
    const double low = finite_or(batch.samples->interval.low, batch.samples->mean) * scale;
    points.low.push_back(low > 0.0 ? low : 0.5 * mean);
    points.high.push_back(finite_or(batch.samples->interval.high, batch.samples->mean) * scale);
  }
  if (analysis_.fit && points.x.size() >= 2) {
    ChartSeries curve{
        .name = "fit", .x = {}, .y = {}, .mark = Mark::kDashed, .colour = {.index = 1}};
    for (const double batch : spread(points.x.front(), points.x.back())) {
      const auto& fit = analysis_.fit->curve;
      curve.x.push_back(batch);
      curve.y.push_back(is_steps ? fit.steps_at(batch) : fit.samples_at(batch));
    }
    chart.series.push_back(std::move(curve));
    const double critical = analysis_.fit->curve.noise_scale;
    if (critical >= points.x.front() && critical <= points.x.back()) {
      chart.rules.push_back({ChartRule::Along::kX, critical, "critical batch"});
    }
  }
  chart.series.push_back(std::move(points));
  return chart;
}

Chart StudyCharts::branches() const {
  Chart chart{.title = "Final " + options_.metric + " by batch",
              .note = "Mean of the seeds after equal samples, with 95 % interval.",
              .x = {.label = "global batch", .scale = Scale::kLog2},
              .y = {.label = options_.metric}};
  for (const auto& batch : analysis_.batches) {
    if (!batch.final_value) continue;
    if (chart.series.empty() || chart.series.back().name != batch.variant) {
      const auto index = static_cast<int>(chart.series.size());
      chart.series.push_back({.name = batch.variant,
                              .x = {},
                              .y = {},
                              .mark = Mark::kLineAndPoints,
                              .colour = {.palette = ChartColour::Palette::kRamp, .index = index}});
    }
    ChartSeries& line = chart.series.back();
    const auto& [mean, interval] = *batch.final_value;
    line.x.push_back(static_cast<double>(batch.batch));
    line.y.push_back(mean);
    line.low.push_back(finite_or(interval.low, mean));
    line.high.push_back(finite_or(interval.high, mean));
  }
  return chart;
}

Chart StudyCharts::best_rate() const {
  Chart chart{.title = "Best learning rate",
              .note = "Small points: rates tried. Rules pass through the study's base.",
              .x = {.label = "global batch", .scale = Scale::kLog2},
              .y = {.label = "learning rate", .scale = Scale::kLog10}};
  ChartSeries tried{.name = "tried",
                    .x = {},
                    .y = {},
                    .mark = Mark::kPoints,
                    .colour = {.palette = ChartColour::Palette::kMuted}};
  for (const auto& setting : analysis_.settings) {
    tried.x.push_back(static_cast<double>(setting.batch));
    tried.y.push_back(setting.lr);
  }
  ChartSeries best{.name = "best", .x = {}, .y = {}, .mark = Mark::kLineAndPoints};
  for (const auto& batch : analysis_.batches) {
    if (!is_first_variant(batch.variant)) continue;
    best.x.push_back(static_cast<double>(batch.batch));
    best.y.push_back(batch.best_lr);
  }
  chart.series.push_back(std::move(tried));
  for (const auto& [name, power, index] :
       {std::tuple{"linear", 1.0, 1}, std::tuple{"square root", 0.5, 2}}) {
    ChartSeries rule{
        .name = name, .x = {}, .y = {}, .mark = Mark::kDashed, .colour = {.index = index}};
    for (const double batch : spread(best.x.front(), std::max(best.x.back(), best.x.front() * 2))) {
      rule.x.push_back(batch);
      rule.y.push_back(options_.lr *
                       std::pow(batch / static_cast<double>(options_.lr_base_batch), power));
    }
    chart.series.push_back(std::move(rule));
  }
  chart.series.push_back(std::move(best));
  return chart;
}

Chart StudyCharts::score_by_rate() const {
  Chart chart{.title = "Metric by learning rate",
              .note = "Mean over seeds at the end of the budget.",
              .x = {.label = "learning rate", .scale = Scale::kLog10},
              .y = {.label = options_.metric}};
  std::map<int64_t, ChartSeries> lines;
  for (const auto& setting : analysis_.settings) {
    if (setting.finals.empty() || !is_first_variant(setting.variant)) continue;
    if (setting.ranks != analysis_.ranks) continue;
    ChartSeries& line = lines[setting.batch];
    line.name = "batch " + std::to_string(setting.batch);
    line.mark = Mark::kLineAndPoints;
    line.x.push_back(setting.lr);
    line.y.push_back(mean_of(setting.finals));
  }
  add_ramp(lines, chart);
  return chart;
}

Chart StudyCharts::curves(const std::string& title, double (*value)(const StudyRun::Step&),
                          Quantity x) const {
  Chart chart{.title = title,
              .note = "The first seed at each batch's best learning rate.",
              .x = {.label = x == Quantity::kSteps ? "steps" : "samples"},
              .y = {}};
  std::map<int64_t, ChartSeries> lines;
  for (const auto& batch : analysis_.batches) {
    if (!is_first_variant(batch.variant)) continue;
    ChartSeries line{.name = "batch " + std::to_string(batch.batch), .x = {}, .y = {}};
    for (const auto& step : batch.best->runs.front()->steps) {
      if (!std::isfinite(value(step))) continue;
      line.x.push_back(x == Quantity::kSteps ? step.samples / static_cast<double>(batch.batch)
                                             : step.samples);
      line.y.push_back(value(step));
    }
    ChartSeries thin = thin_out(line, kNumLossPoints);
    thin.low.clear();
    thin.high.clear();
    lines[batch.batch] = std::move(thin);
  }
  add_ramp(lines, chart);
  return chart;
}

Chart StudyCharts::evaluations() const {
  Chart chart{.title = options_.metric + " by samples",
              .note = "The first seed at each batch's best learning rate.",
              .x = {.label = "samples"},
              .y = {.label = options_.metric}};
  std::map<int64_t, ChartSeries> lines;
  for (const auto& batch : analysis_.batches) {
    if (!is_first_variant(batch.variant)) continue;
    ChartSeries line{.name = "batch " + std::to_string(batch.batch), .x = {}, .y = {}};
    for (const auto& evaluation : batch.best->runs.front()->evaluations) {
      line.x.push_back(evaluation.samples);
      line.y.push_back(evaluation.value);
    }
    lines[batch.batch] = std::move(line);
  }
  add_ramp(lines, chart);
  if (analysis_.target_from != StudyAnalysis::TargetFrom::kNone) {
    chart.rules.push_back({ChartRule::Along::kY, analysis_.target, "target"});
  }
  return chart;
}

Chart StudyCharts::training_loss(Quantity x) const {
  const bool is_steps = x == Quantity::kSteps;
  return curves(
      is_steps ? "Training loss by steps" : "Training loss by samples",
      [](const StudyRun::Step& step) { return step.loss; }, x);
}

Chart StudyCharts::noise_scale() const {
  const auto value = [](const StudyRun::Step& step) {
    return step.noise_scale > 0.0 ? step.noise_scale : std::nan("");
  };
  Chart chart = curves("Gradient-noise scale", value, Quantity::kSamples);
  chart.y = {.label = "samples", .scale = Scale::kLog10};
  return chart;
}

BarChart StudyCharts::breakdown() const {
  BarChart bars{.title = "Where a step's time goes",
                .note = "Medians of the first seed at each batch's best learning rate.",
                .parts = {"computation", "exposed communication", "waiting for data"},
                .bars = {},
                .x = {.label = "seconds", .format = ChartAxis::Format::kSeconds}};
  for (const auto& batch : analysis_.batches) {
    if (!is_first_variant(batch.variant)) continue;
    const StudyRun& run = *batch.best->runs.front();
    const double rest =
        std::max(0.0, run.step_seconds - run.comm_exposed_seconds - run.data_seconds);
    bars.bars.push_back({"batch " + std::to_string(batch.batch),
                         {rest, run.comm_exposed_seconds, run.data_seconds}});
  }
  return bars;
}

Chart StudyCharts::throughput() const {
  Chart chart{.title = "Throughput",
              .x = {.label = "ranks", .scale = Scale::kLog2},
              .y = {.label = "images a second", .scale = Scale::kLog2}};
  std::map<int64_t, ChartSeries> lines;
  std::map<int64_t, ChartSeries> ideal;
  for (const auto& row : analysis_.scaling) {
    if (!is_first_variant(row.variant)) continue;
    ChartSeries& line = lines[row.batch];
    line.name = "batch " + std::to_string(row.batch);
    line.mark = Mark::kLineAndPoints;
    line.x.push_back(static_cast<double>(row.ranks));
    line.y.push_back(row.images_per_second);
    ChartSeries& straight = ideal[row.batch];
    straight.mark = Mark::kFaint;
    straight.x.push_back(static_cast<double>(row.ranks));
    straight.y.push_back(row.images_per_second / row.efficiency);
  }
  add_ramp(ideal, chart);
  add_ramp(lines, chart);
  ChartSeries plan{.name = "plan", .x = {}, .y = {}, .mark = Mark::kPoints, .colour = {.index = 1}};
  for (const auto& row : predicted_) {
    plan.x.push_back(static_cast<double>(row.ranks));
    plan.y.push_back(row.images_per_second);
  }
  if (!plan.x.empty()) chart.series.push_back(std::move(plan));
  chart.note = "Thin lines: ideal. Points of plan: calibrated on the fewest ranks.";
  return chart;
}

Chart StudyCharts::efficiency() const {
  Chart chart{.title = "Efficiency",
              .note =
                  "Of a rank, against the fewest ranks: lines at the same batch (strong), "
                  "points at the same share of it (weak).",
              .x = {.label = "ranks", .scale = Scale::kLog2},
              .y = {.low = 0.0, .format = ChartAxis::Format::kPercent}};
  std::map<int64_t, ChartSeries> lines;
  for (const auto& row : analysis_.scaling) {
    if (!is_first_variant(row.variant)) continue;
    ChartSeries& line = lines[row.batch];
    line.name = "batch " + std::to_string(row.batch);
    line.mark = Mark::kLineAndPoints;
    line.x.push_back(static_cast<double>(row.ranks));
    line.y.push_back(row.efficiency);
  }
  add_ramp(lines, chart);
  ChartSeries weak{.name = "weak", .x = {}, .y = {}, .mark = Mark::kPoints, .colour = {.index = 1}};
  for (const auto& row : analysis_.scaling) {
    if (!row.weak_efficiency || !is_first_variant(row.variant)) continue;
    weak.x.push_back(static_cast<double>(row.ranks));
    weak.y.push_back(*row.weak_efficiency);
  }
  if (!weak.x.empty()) chart.series.push_back(std::move(weak));
  chart.rules.push_back({ChartRule::Along::kY, 1.0, "ideal"});
  return chart;
}
}  // namespace trireme
