#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

#include "report/html_page.h"
#include "study/fit_report.h"
#include "study/study_charts.h"
#include "study/study_report.h"
#include "trainer/metric_watch.h"

namespace trireme {
namespace {
using Look = HtmlTable::Cell::Look;
using Quantity = StudyCharts::Quantity;

// "+1.2 % (+0.4 to +2)".
std::string percent_with_interval(const MeanInterval& share) {
  char text[96];
  const auto& [mean, interval] = share;
  if (std::isfinite(interval.low)) {
    std::snprintf(text, sizeof(text), "%+.3g %% (%+.3g to %+.3g)", 100.0 * mean,
                  100.0 * interval.low, 100.0 * interval.high);
  } else {
    std::snprintf(text, sizeof(text), "%+.3g %%", 100.0 * mean);
  }
  return text;
}

class StudyPage {
 public:
  StudyPage(const StudyOptions& options, const StudyAnalysis& analysis,
            std::span<const StudyRun> records, std::span<const PredictedScaling> predicted)
      : options_(options),
        analysis_(analysis),
        records_(records),
        charts_(options, analysis, predicted),
        page_("Scaling study " + options.name, "", lede()) {}

  std::string write() {
    figures();
    page_.section("Verdict");
    page_.list(analysis_.verdict);
    if (!analysis_.batches.empty()) {
      if (options_.forks.empty()) {
        batches();
        rates();
      } else {
        branches();
      }
      losses();
      speed();
      common_numbers();
      page_.section("Runs");
      runs();
    }
    return page_.text();
  }

 private:
  [[nodiscard]] std::string lede() const {
    const auto num_finished =
        std::ranges::count(records_, StudyRun::State::kFinished, &StudyRun::state);
    const auto num_diverged =
        std::ranges::count(records_, StudyRun::State::kDiverged, &StudyRun::state);
    std::string text =
        std::to_string(num_finished) + " runs finished, " + std::to_string(num_diverged) +
        " diverged, of " + std::to_string(records_.size()) + "; up to " +
        format_rounded(static_cast<double>(options_.budget_samples)) + " samples each. ";
    using TargetFrom = StudyAnalysis::TargetFrom;
    if (analysis_.target_from != TargetFrom::kNone) {
      text += "Target: " + options_.metric +
              (metric_sign(options_.metric) > 0.0 ? " at or below " : " at or above ") +
              format_rounded(analysis_.target);
      text += analysis_.target_from == TargetFrom::kFile
                  ? "."
                  : ", the best that every batch reaches with every seed.";
    }
    const bool has_others = std::ranges::any_of(analysis_.settings, [this](const Setting& setting) {
      return setting.ranks != analysis_.ranks;
    });
    if (has_others) {
      text += " Batches are compared on " + std::to_string(analysis_.ranks) +
              (analysis_.ranks == 1 ? " rank." : " ranks.");
    }
    return text;
  }

  [[nodiscard]] bool has_noise_scale() const {
    return std::ranges::any_of(analysis_.batches,
                               [](const BatchResult& batch) { return batch.noise_scale > 0.0; });
  }

  void figures() {
    std::vector<KeyFigure> figures;
    if (analysis_.fit) {
      const TradeoffFit& fit = *analysis_.fit;
      const auto& batches = analysis_.points.batches;
      using Identified = TradeoffFit::Identified;
      figures.push_back(
          fit.identified == Identified::kTooHigh
              ? KeyFigure{"above " + format_rounded(batches.back().batch), "critical batch",
                          "samples to target do not grow"}
          : fit.identified == Identified::kTooLow
              ? KeyFigure{"below " + format_rounded(batches.front().batch), "critical batch",
                          "samples to target grow as the batch"}
              : KeyFigure{format_rounded(fit.curve.noise_scale), "critical batch",
                          with_interval(fit.curve.noise_scale, fit.noise_scale_interval)});
    }
    if (analysis_.lr_law) {
      figures.push_back({format_rounded(analysis_.lr_law->exponent), "learning-rate exponent",
                         with_interval(analysis_.lr_law->exponent, analysis_.lr_law->interval)});
    }
    for (const auto& [variant, batch] : analysis_.lossless) {
      figures.push_back({std::to_string(batch), "largest lossless batch",
                         variant.empty() ? "at equal samples" : variant});
    }
    if (analysis_.common) {
      figures.push_back({format_rounded(analysis_.common->seeds_ratio),
                         "seeds needed with common random numbers",
                         "over those with independent ones"});
    }
    page_.key_figures(figures);
  }

  void batches() {
    page_.section("Batch");
    page_.charts({charts_.tradeoff(Quantity::kSteps), charts_.tradeoff(Quantity::kSamples)});
    if (analysis_.fit) page_.list(fit_notes(analysis_.points, *analysis_.fit));
    HtmlTable table{.header = {"batch", "best rate", "samples to target", "steps", "seconds",
                               "final " + options_.metric, "statistical efficiency"},
                    .rows = {}};
    if (has_noise_scale()) table.header.emplace_back("noise scale");
    for (const auto& batch : analysis_.batches) {
      const bool is_at_start = analysis_.target_from != StudyAnalysis::TargetFrom::kNone &&
                               std::ranges::any_of(batch.best->runs, [this](const StudyRun* run) {
                                 return run->starts_at(analysis_.target);
                               });
      std::string samples = is_at_start ? "met before the first step" : "not reached";
      std::string steps;
      std::string seconds;
      std::string efficiency;
      if (batch.samples) {
        samples = with_interval(batch.samples->mean, batch.samples->interval);
        steps = with_interval(batch.steps()->mean, batch.steps()->interval);
        if (const auto time = batch.seconds()) seconds = with_interval(time->mean, time->interval);
        if (analysis_.fit) {
          efficiency = format_rounded(analysis_.fit->curve.e_min / batch.samples->mean);
        }
      }
      const std::string name =
          std::to_string(batch.batch) + (batch.variant.empty() ? "" : " (" + batch.variant + ")");
      table.rows.push_back(
          {.cells = {{name, Look::kNumber},
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
                     {efficiency, Look::kNumber}}});
      if (!has_noise_scale()) continue;
      const bool is_measured = batch.noise_scale > 0.0;
      table.rows.back().cells.push_back(
          {is_measured ? format_rounded(batch.noise_scale) : "", Look::kNumber});
    }
    page_.table(table);
  }

  void branches() {
    page_.section("Branches");
    page_.charts({charts_.branches()});
    HtmlTable table{.header = {"fork", "batch", "against the smallest batch",
                               "final " + options_.metric, "learning rate"},
                    .rows = {}};
    for (const auto& batch : analysis_.batches) {
      table.rows.push_back(
          {.cells = {{batch.variant},
                     {std::to_string(batch.batch), Look::kNumber},
                     {batch.over_smallest ? percent_with_interval(*batch.over_smallest) : "",
                      Look::kNumber},
                     {batch.final_value
                          ? with_interval(batch.final_value->mean, batch.final_value->interval)
                          : "none",
                      Look::kNumber},
                     {format_rounded(batch.best->lr), Look::kNumber}}});
    }
    page_.table(table);
  }

  void rates() {
    page_.section("Learning rate");
    page_.charts({charts_.best_rate(), charts_.score_by_rate()});
  }

  void losses() {
    page_.section("Loss");
    page_.charts({charts_.evaluations(), charts_.training_loss(Quantity::kSamples),
                  charts_.training_loss(Quantity::kSteps)});
    if (has_noise_scale()) page_.charts({charts_.noise_scale()});
  }

  void speed() {
    page_.section("Speed");
    page_.bars({charts_.breakdown()});
    const bool has_ranks = std::ranges::any_of(
        analysis_.scaling, [](const RankScaling& row) { return row.efficiency != 1.0; });
    if (has_ranks) page_.charts({charts_.throughput(), charts_.efficiency()});
    if (analysis_.rank_loss_difference) {
      page_.paragraph(
          "Runs that differ in the number of ranks only have losses that differ by at "
          "most " +
          format_rounded(*analysis_.rank_loss_difference) + " (relative).");
    }
  }

  void common_numbers() {
    if (!analysis_.common) return;
    page_.section("Common random numbers");
    page_.paragraph(
        "Runs with the same seed see the same noise on the same sample. Comparing two settings "
        "takes so many times the seeds that independent seeds would:");
    HtmlTable table{.header = {"settings that differ in", "pairs", "correlation", "seeds needed"},
                    .rows = {}};
    const auto add = [&](const char* what, const std::optional<CommonNumbers>& common) {
      if (!common) return;
      table.rows.push_back(
          {.cells = {{what},
                     {std::to_string(common->num_pairs), Look::kNumber},
                     {format_rounded(common->correlation), Look::kNumber},
                     {with_interval(common->seeds_ratio, common->ratio_interval), Look::kNumber}}});
    };
    add("learning rate or other keys", analysis_.common_rates);
    add("batch, too", analysis_.common_batches);
    add("anything", analysis_.common);
    page_.table(table);
  }

  void runs() {
    HtmlTable table{.header = {"run", "learning rate", "seed", "ranks", "state",
                               "samples to target", "final " + options_.metric, "images/s"},
                    .rows = {}};
    for (const auto& record : records_) {
      if (record.state == StudyRun::State::kAbsent) continue;
      const bool is_finished = record.state == StudyRun::State::kFinished;
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
  std::span<const StudyRun> records_;
  StudyCharts charts_;
  HtmlPage page_;
};
}  // namespace

std::string study_to_html(const StudyOptions& options, const StudyAnalysis& analysis,
                          std::span<const StudyRun> records,
                          std::span<const PredictedScaling> predicted) {
  return StudyPage(options, analysis, records, predicted).write();
}
}  // namespace trireme
