#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <tuple>

#include "report/chart.h"
#include "report/html_page.h"
#include "study/fit_report.h"
#include "study/study_report.h"

namespace trireme {
namespace {
using Mark = ChartSeries::Mark;
using Look = HtmlTable::Cell::Look;
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

class StudyPage {
 public:
  StudyPage(const StudyOptions& options, const StudyAnalysis& analysis,
            std::span<const RunRecord> records, std::span<const PredictedScaling> predicted)
      : options_(options),
        analysis_(analysis),
        records_(records),
        predicted_(predicted),
        page_("Scaling study " + options.name, "", lede()) {}

  std::string write() {
    figures();
    page_.section("Verdict");
    page_.list(analysis_.verdict);
    if (!analysis_.batches.empty()) {
      batches();
      rates();
      losses();
      speed();
      page_.section("Runs");
      runs();
    }
    return page_.text();
  }

 private:
  [[nodiscard]] std::string lede() const {
    const auto num_finished =
        std::ranges::count(records_, RunRecord::State::kFinished, &RunRecord::state);
    const auto num_diverged =
        std::ranges::count(records_, RunRecord::State::kDiverged, &RunRecord::state);
    std::string text =
        std::to_string(num_finished) + " runs finished, " + std::to_string(num_diverged) +
        " diverged, of " + std::to_string(records_.size()) + "; up to " +
        format_rounded(static_cast<double>(options_.budget_samples)) + " samples each. ";
    using TargetFrom = StudyAnalysis::TargetFrom;
    if (analysis_.target_from != TargetFrom::kNone) {
      text += "Target: " + options_.metric + " at or below " + format_rounded(analysis_.target);
      text += analysis_.target_from == TargetFrom::kFile
                  ? "."
                  : ", the lowest that every batch reaches with every seed.";
    }
    return text;
  }

  void figures() {
    std::vector<KeyFigure> figures;
    if (analysis_.fit) {
      figures.push_back(
          {format_rounded(analysis_.fit->curve.noise_scale), "critical batch",
           with_interval(analysis_.fit->curve.noise_scale, analysis_.fit->noise_scale_interval)});
    }
    if (analysis_.lr_law) {
      figures.push_back({format_rounded(analysis_.lr_law->exponent), "learning-rate exponent",
                         with_interval(analysis_.lr_law->exponent, analysis_.lr_law->interval)});
    }
    figures.push_back({std::to_string(analysis_.largest_lossless_batch), "largest lossless batch",
                       "at equal samples"});
    if (analysis_.common) {
      figures.push_back({format_rounded(analysis_.common->seeds_ratio),
                         "seeds needed with common random numbers",
                         "over those with independent ones"});
    }
    page_.key_figures(figures);
  }

  // Points of the first variant, with a whisker for the interval; `per_batch` divides by the batch.
  enum class Quantity { kSamples, kSteps };
  Chart tradeoff(Quantity quantity) {
    const bool is_steps = quantity == Quantity::kSteps;
    Chart chart{.title = is_steps ? "Steps to target" : "Samples to target",
                .note = "Mean of the seeds at the best learning rate, with 95 % interval.",
                .x = {.label = "global batch", .scale = Scale::kLog2},
                .y = {.label = is_steps ? "steps" : "samples", .scale = Scale::kLog10}};
    ChartSeries points{.name = "measured", .x = {}, .y = {}, .mark = Mark::kPoints};
    for (const auto& batch : analysis_.batches) {
      if (!batch.samples || batch.variant != analysis_.batches.front().variant) continue;
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

  void batches() {
    page_.section("Batch");
    page_.charts({tradeoff(Quantity::kSteps), tradeoff(Quantity::kSamples)});
    if (analysis_.fit) page_.list(fit_notes(analysis_.points, *analysis_.fit));
    HtmlTable table{.header = {"batch", "best rate", "samples to target", "steps", "seconds",
                               "final " + options_.metric, "statistical efficiency", "noise scale"},
                    .rows = {}};
    for (const auto& batch : analysis_.batches) {
      const auto size = static_cast<double>(batch.batch);
      std::string samples = "not reached";
      std::string steps;
      std::string seconds;
      std::string efficiency;
      if (batch.samples) {
        samples = with_interval(batch.samples->mean, batch.samples->interval);
        steps = format_rounded(batch.samples->mean / size);
        if (batch.images_per_second > 0.0) {
          seconds = format_rounded(batch.samples->mean / batch.images_per_second);
        }
        if (analysis_.fit) {
          efficiency = format_rounded(analysis_.fit->curve.e_min / batch.samples->mean);
        }
      }
      const std::string name =
          std::to_string(batch.batch) + (batch.variant.empty() ? "" : " (" + batch.variant + ")");
      table.rows.push_back(
          {.cells = {
               {name, Look::kNumber},
               {format_rounded(batch.best_lr) +
                    (batch.edge == BatchResult::Edge::kInside ? "" : " (edge)"),
                Look::kNumber},
               {samples, Look::kNumber},
               {steps, Look::kNumber},
               {seconds, Look::kNumber},
               {batch.final_value
                    ? with_interval(batch.final_value->mean, batch.final_value->interval)
                    : "none",
                Look::kNumber},
               {efficiency, Look::kNumber},
               {batch.noise_scale > 0.0 ? format_rounded(batch.noise_scale) : "", Look::kNumber}}});
    }
    page_.table(table);
  }

  void rates() {
    page_.section("Learning rate");
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
      if (batch.variant != analysis_.batches.front().variant) continue;
      best.x.push_back(static_cast<double>(batch.batch));
      best.y.push_back(batch.best_lr);
    }
    chart.series.push_back(std::move(tried));
    for (const auto& [name, power, index] :
         {std::tuple{"linear", 1.0, 1}, std::tuple{"square root", 0.5, 2}}) {
      ChartSeries rule{
          .name = name, .x = {}, .y = {}, .mark = Mark::kDashed, .colour = {.index = index}};
      for (const double batch :
           spread(best.x.front(), std::max(best.x.back(), best.x.front() * 2))) {
        rule.x.push_back(batch);
        rule.y.push_back(options_.lr *
                         std::pow(batch / static_cast<double>(options_.lr_base_batch), power));
      }
      chart.series.push_back(std::move(rule));
    }
    chart.series.push_back(std::move(best));
    page_.charts({chart, score_by_rate()});
  }

  // The metric against the rate, a line a batch.
  Chart score_by_rate() {
    Chart chart{.title = "Metric by learning rate",
                .note = "Mean over seeds at the end of the budget.",
                .x = {.label = "learning rate", .scale = Scale::kLog10},
                .y = {.label = options_.metric}};
    std::map<int64_t, ChartSeries> lines;
    for (const auto& setting : analysis_.settings) {
      if (setting.finals.empty() || setting.variant != analysis_.batches.front().variant) continue;
      ChartSeries& line = lines[setting.batch];
      line.name = "batch " + std::to_string(setting.batch);
      line.mark = Mark::kLineAndPoints;
      line.x.push_back(setting.lr);
      line.y.push_back(mean_of(setting.finals));
    }
    add_ramp(lines, chart);
    return chart;
  }

  static void add_ramp(std::map<int64_t, ChartSeries>& lines, Chart& chart) {
    int index = 0;
    for (auto& [batch, line] : lines) {
      line.colour = {.palette = ChartColour::Palette::kRamp, .index = index++};
      chart.series.push_back(std::move(line));
    }
  }

  // The first seed's best run of each batch; x in samples, or in steps.
  Chart curves(const std::string& title, bool (*keep)(const RunRecord::Step&),
               double (*value)(const RunRecord::Step&), Quantity x) {
    Chart chart{.title = title,
                .note = "The first seed at each batch's best learning rate.",
                .x = {.label = x == Quantity::kSteps ? "steps" : "samples"},
                .y = {}};
    std::map<int64_t, ChartSeries> lines;
    for (const auto& batch : analysis_.batches) {
      if (batch.variant != analysis_.batches.front().variant) continue;
      ChartSeries line{.name = "batch " + std::to_string(batch.batch), .x = {}, .y = {}};
      for (const auto& step : batch.best->runs.front()->steps) {
        if (!keep(step)) continue;
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

  Chart evaluations() {
    Chart chart{.title = options_.metric + " by samples",
                .note = "The first seed at each batch's best learning rate.",
                .x = {.label = "samples"},
                .y = {.label = options_.metric}};
    std::map<int64_t, ChartSeries> lines;
    for (const auto& batch : analysis_.batches) {
      if (batch.variant != analysis_.batches.front().variant) continue;
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

  void losses() {
    page_.section("Loss");
    const auto all = [](const RunRecord::Step&) { return true; };
    const auto loss = [](const RunRecord::Step& step) { return step.loss; };
    page_.charts({evaluations(), curves("Training loss by samples", all, loss, Quantity::kSamples),
                  curves("Training loss by steps", all, loss, Quantity::kSteps)});
    const bool is_measured = std::ranges::any_of(
        analysis_.batches, [](const BatchResult& batch) { return batch.noise_scale > 0.0; });
    if (!is_measured) return;
    Chart noise = curves(
        "Gradient-noise scale", [](const RunRecord::Step& step) { return step.noise_scale > 0.0; },
        [](const RunRecord::Step& step) { return step.noise_scale; }, Quantity::kSamples);
    noise.y = {.label = "samples", .scale = Scale::kLog10};
    page_.charts({noise});
  }

  void speed() {
    page_.section("Speed");
    BarChart bars{.title = "Where a step's time goes",
                  .note = "Medians of the first seed at each batch's best learning rate.",
                  .parts = {"computation", "exposed communication", "waiting for data"},
                  .bars = {},
                  .x = {.label = "seconds", .format = ChartAxis::Format::kSeconds}};
    for (const auto& batch : analysis_.batches) {
      const RunRecord& run = *batch.best->runs.front();
      const double rest =
          std::max(0.0, run.step_seconds - run.comm_exposed_seconds - run.data_seconds);
      bars.bars.push_back({"batch " + std::to_string(batch.batch),
                           {rest, run.comm_exposed_seconds, run.data_seconds}});
    }
    page_.bars({bars});
    const bool has_ranks = std::ranges::any_of(
        analysis_.scaling, [](const RankScaling& row) { return row.efficiency != 1.0; });
    if (has_ranks) page_.charts({throughput(), efficiency()});
    if (analysis_.rank_loss_difference) {
      page_.paragraph(
          "Runs that differ in the number of ranks only have losses that differ by at "
          "most " +
          format_rounded(*analysis_.rank_loss_difference) + " (relative).");
    }
  }

  Chart throughput() {
    Chart chart{.title = "Throughput",
                .x = {.label = "ranks", .scale = Scale::kLog2},
                .y = {.label = "images a second", .scale = Scale::kLog2}};
    std::map<int64_t, ChartSeries> lines;
    std::map<int64_t, ChartSeries> ideal;
    for (const auto& row : analysis_.scaling) {
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
    ChartSeries plan{
        .name = "plan", .x = {}, .y = {}, .mark = Mark::kPoints, .colour = {.index = 1}};
    for (const auto& row : predicted_) {
      plan.x.push_back(static_cast<double>(row.ranks));
      plan.y.push_back(row.images_per_second);
    }
    if (!plan.x.empty()) chart.series.push_back(std::move(plan));
    chart.note = "Thin lines: ideal. Points of plan: calibrated on the fewest ranks.";
    return chart;
  }

  Chart efficiency() {
    Chart chart{.title = "Efficiency",
                .note = "Of a rank, against the fewest ranks at the same batch.",
                .x = {.label = "ranks", .scale = Scale::kLog2},
                .y = {.low = 0.0, .format = ChartAxis::Format::kPercent}};
    std::map<int64_t, ChartSeries> lines;
    for (const auto& row : analysis_.scaling) {
      ChartSeries& line = lines[row.batch];
      line.name = "batch " + std::to_string(row.batch);
      line.mark = Mark::kLineAndPoints;
      line.x.push_back(static_cast<double>(row.ranks));
      line.y.push_back(row.efficiency);
    }
    add_ramp(lines, chart);
    chart.rules.push_back({ChartRule::Along::kY, 1.0, "ideal"});
    return chart;
  }

  void runs() {
    if (analysis_.common) {
      const auto& common = *analysis_.common;
      page_.paragraph("Common random numbers: over " + std::to_string(common.num_pairs) +
                      " pairs of settings, results with the same seed correlate by " +
                      format_rounded(common.correlation) + "; comparing two settings takes " +
                      with_interval(common.seeds_ratio, common.ratio_interval) +
                      " times the seeds that independent seeds would.");
    }
    HtmlTable table{.header = {"run", "learning rate", "seed", "ranks", "state",
                               "samples to target", "final " + options_.metric, "images/s"},
                    .rows = {}};
    for (const auto& record : records_) {
      if (record.state == RunRecord::State::kAbsent) continue;
      const bool is_finished = record.state == RunRecord::State::kFinished;
      const auto samples = is_finished ? record.samples_to(analysis_.target) : std::nullopt;
      const auto final_value = record.final_value();
      table.rows.push_back(
          {.cells = {{record.spec.name, Look::kCode},
                     {format_rounded(record.spec.lr), Look::kNumber},
                     {std::to_string(record.spec.seed), Look::kNumber},
                     {std::to_string(record.spec.ranks), Look::kNumber},
                     {std::string(state_name(record.state))},
                     {samples ? format_rounded(*samples) : "", Look::kNumber},
                     {final_value ? format_rounded(*final_value) : "", Look::kNumber},
                     {format_rounded(record.images_per_second), Look::kNumber}}});
    }
    page_.folded_table("All runs", table);
  }

  const StudyOptions& options_;
  const StudyAnalysis& analysis_;
  std::span<const RunRecord> records_;
  std::span<const PredictedScaling> predicted_;
  HtmlPage page_;
};
}  // namespace

std::string study_to_html(const StudyOptions& options, const StudyAnalysis& analysis,
                          std::span<const RunRecord> records,
                          std::span<const PredictedScaling> predicted) {
  return StudyPage(options, analysis, records, predicted).write();
}
}  // namespace trireme
