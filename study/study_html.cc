#include <algorithm>
#include <string>

#include "report/html_page.h"
#include "study/fit_report.h"
#include "study/study_charts.h"
#include "study/study_report.h"

namespace trireme {
namespace {
using Look = HtmlTable::Cell::Look;
using Quantity = StudyCharts::Quantity;

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
        std::ranges::count(records_, StudyRun::State::kFinished, &StudyRun::state);
    const auto num_diverged =
        std::ranges::count(records_, StudyRun::State::kDiverged, &StudyRun::state);
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

  void batches() {
    page_.section("Batch");
    page_.charts({charts_.tradeoff(Quantity::kSteps), charts_.tradeoff(Quantity::kSamples)});
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
    page_.charts({charts_.best_rate(), charts_.score_by_rate()});
  }

  void losses() {
    page_.section("Loss");
    page_.charts({charts_.evaluations(), charts_.training_loss(Quantity::kSamples),
                  charts_.training_loss(Quantity::kSteps)});
    const bool is_measured = std::ranges::any_of(
        analysis_.batches, [](const BatchResult& batch) { return batch.noise_scale > 0.0; });
    if (is_measured) page_.charts({charts_.noise_scale()});
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
