#include <algorithm>
#include <cmath>
#include <map>

#include <nlohmann/json.hpp>

#include "study/fit_report.h"
#include "study/step_model.h"
#include "study/study_report.h"

namespace trireme {
namespace {
using nlohmann::ordered_json;

ordered_json mean_to_json(const std::optional<MeanInterval>& value) {
  if (!value) return nullptr;
  ordered_json interval = nullptr;
  if (std::isfinite(value->interval.low)) {
    interval = ordered_json::array({value->interval.low, value->interval.high});
  }
  return {{"mean", value->mean}, {"interval", interval}};
}

ordered_json common_to_json(const std::optional<CommonNumbers>& common) {
  if (!common) return nullptr;
  ordered_json json = {{"num_pairs", common->num_pairs},
                       {"correlation", common->correlation},
                       {"seeds_ratio", common->seeds_ratio},
                       {"seeds_ratio_interval", nullptr}};
  if (const auto& interval = common->ratio_interval) {
    json["seeds_ratio_interval"] = ordered_json::array({interval->low, interval->high});
  }
  return json;
}

const char* edge_name(BatchResult::Edge edge) {
  return edge == BatchResult::Edge::kInside ? "inside"
         : edge == BatchResult::Edge::kLow  ? "low"
                                            : "high";
}

ordered_json batch_to_json(const BatchResult& batch) {
  ordered_json json = {{"batch", batch.batch},
                       {"variant", batch.variant},
                       {"best_lr", batch.best_lr},
                       {"best_lr_tried", batch.best->lr},
                       {"best_lr_at", edge_name(batch.edge)},
                       {"warmup_samples", batch.best->warmup_samples},
                       {"num_runs", batch.best->runs.size()},
                       {"samples_to_target", mean_to_json(batch.samples)},
                       {"final", mean_to_json(batch.final_value)},
                       {"final_over_smallest", mean_to_json(batch.over_smallest)},
                       {"images_per_second", batch.images_per_second}};
  const auto add = [&json](const std::string& name, const std::optional<MeanInterval>& value) {
    json[name] = value ? ordered_json(value->mean) : ordered_json(nullptr);
    json[name + "_interval"] = mean_to_json(value)["interval"];
  };
  add("steps_to_target", batch.steps());
  add("seconds_to_target", batch.seconds());
  json["noise_scale"] =
      batch.noise_scale > 0.0 ? ordered_json(batch.noise_scale) : ordered_json(nullptr);
  return json;
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.9g", value);
  return std::isfinite(value) ? text : "";
}
}  // namespace

std::vector<PredictedScaling> predict_scaling(const NetworkCost& network, const GpuPreset& machine,
                                              std::span<const RankScaling> measured) {
  if (measured.empty()) return {};
  const Fabric fabric = fabric_of(machine);
  ReductionPlan reduction;
  reduction.buckets = plan_bucket_times(network, 0);
  const int64_t fewest =
      std::ranges::min(measured, {}, [](const auto& row) { return row.ranks; }).ranks;
  std::vector<MeasuredStep> calibration;
  for (const auto& row : measured) {
    if (row.ranks != fewest) continue;
    calibration.push_back(
        {.num_ranks = static_cast<int>(row.ranks),
         .samples_per_rank = static_cast<double>(row.batch) / static_cast<double>(row.ranks),
         .samples_per_second = row.images_per_second});
  }
  const ComputeModel compute = calibrate_compute({}, reduction, fabric, calibration);
  std::vector<PredictedScaling> predicted;
  for (const auto& row : measured) {
    Fabric there = fabric;
    there.num_ranks = static_cast<int>(row.ranks);
    const double share = static_cast<double>(row.batch) / static_cast<double>(row.ranks);
    const double seconds = predict_step(compute, reduction, there, share).total();
    predicted.push_back({row.batch, row.ranks, static_cast<double>(row.batch) / seconds});
  }
  return predicted;
}

ordered_json study_to_json(const StudyOptions& options, const StudyAnalysis& analysis,
                           std::span<const PredictedScaling> predicted) {
  ordered_json json;
  json["name"] = options.name;
  json["metric"] = options.metric;
  using TargetFrom = StudyAnalysis::TargetFrom;
  const bool has_target = analysis.target_from != TargetFrom::kNone;
  json["target"] = has_target ? ordered_json(analysis.target) : ordered_json(nullptr);
  json["target_from"] = analysis.target_from == TargetFrom::kFile         ? "file"
                        : analysis.target_from == TargetFrom::kWorstBatch ? "worst_batch"
                                                                          : "none";
  json["budget_samples"] = options.budget_samples;
  json["ranks"] = analysis.ranks;
  json["verdict"] = analysis.verdict;
  json["batches"] = ordered_json::array();
  for (const auto& batch : analysis.batches) json["batches"].push_back(batch_to_json(batch));
  json["fit"] = analysis.fit ? fit_to_json(analysis.points, *analysis.fit) : ordered_json(nullptr);
  json["lr_exponent"] = nullptr;
  if (analysis.lr_law) {
    json["lr_exponent"] = {{"value", analysis.lr_law->exponent}, {"interval", nullptr}};
    if (const auto& interval = analysis.lr_law->interval) {
      json["lr_exponent"]["interval"] = ordered_json::array({interval->low, interval->high});
    }
  }
  json["common_random_numbers"] = common_to_json(analysis.common);
  if (analysis.common) {
    json["common_random_numbers"]["same_batch"] = common_to_json(analysis.common_rates);
    json["common_random_numbers"]["other_batch"] = common_to_json(analysis.common_batches);
  }
  json["largest_lossless_batch"] = analysis.lossless.empty() ? 0 : analysis.lossless.front().batch;
  json["lossless"] = ordered_json::array();
  for (const auto& [variant, batch] : analysis.lossless) {
    json["lossless"].push_back({{"variant", variant}, {"largest_batch", batch}});
  }
  json["scaling"] = ordered_json::array();
  for (size_t i = 0; i < analysis.scaling.size(); ++i) {
    const auto& row = analysis.scaling[i];
    json["scaling"].push_back(
        {{"variant", row.variant},
         {"batch", row.batch},
         {"ranks", row.ranks},
         {"images_per_second", row.images_per_second},
         {"efficiency", row.efficiency},
         {"weak_efficiency",
          row.weak_efficiency ? ordered_json(*row.weak_efficiency) : ordered_json(nullptr)},
         {"predicted_images_per_second", i < predicted.size()
                                             ? ordered_json(predicted[i].images_per_second)
                                             : ordered_json(nullptr)}});
  }
  json["rank_loss_difference"] = analysis.rank_loss_difference
                                     ? ordered_json(*analysis.rank_loss_difference)
                                     : ordered_json(nullptr);
  return json;
}

std::string study_to_csv(const StudyAnalysis& analysis, std::span<const StudyRun> records) {
  std::string text =
      "run,batch,lr,lr_factor,warmup_samples,ranks,seed,variant,state,samples,final,"
      "images_per_second,is_best\n";
  std::map<const StudyRun*, bool> best;
  for (const auto& batch : analysis.batches) {
    for (const auto* run : batch.best->runs) best[run] = true;
  }
  for (const auto& record : records) {
    if (record.state == StudyRun::State::kAbsent) continue;
    const RunSpec& spec = record.spec;
    const bool is_finished = record.state == StudyRun::State::kFinished;
    const auto samples = is_finished ? record.samples_to(analysis.target) : std::nullopt;
    const auto final_value = record.final_value();
    text += spec.name + "," + std::to_string(spec.batch) + "," + number(spec.lr) + "," +
            number(spec.lr_factor) + "," + std::to_string(spec.warmup_samples) + "," +
            std::to_string(spec.ranks) + "," + std::to_string(spec.seed) + "," +
            csv_field(spec.variant) + "," + std::string(state_name(record.state)) + "," +
            (samples ? number(*samples) : "") + "," + (final_value ? number(*final_value) : "") +
            "," + number(record.images_per_second) + "," + (best[&record] ? "1" : "0") + "\n";
  }
  return text;
}
}  // namespace trireme
