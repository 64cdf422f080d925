#pragma once
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "study/machine.h"
#include "study/network_cost.h"
#include "study/study_analysis.h"

namespace trireme {

// What the planner says of the rank counts that a study measured on `machine`, calibrated on the
// runs with the fewest ranks. REQUIRES: `measured` of one variant.
struct PredictedScaling {
  int64_t batch = 0;
  int64_t ranks = 1;
  double images_per_second = 0.0;
};
[[nodiscard]] std::vector<PredictedScaling> predict_scaling(const NetworkCost& network,
                                                            const GpuPreset& machine,
                                                            std::span<const RankScaling> measured);

// results.json and runs.csv (a run a line; `study fit` reads it: columns batch, samples).
[[nodiscard]] nlohmann::ordered_json study_to_json(const StudyOptions& options,
                                                   const StudyAnalysis& analysis,
                                                   std::span<const PredictedScaling> predicted);
[[nodiscard]] std::string study_to_csv(const StudyAnalysis& analysis,
                                       std::span<const StudyRun> records);

// report.html: one page, no network, no scripts.
[[nodiscard]] std::string study_to_html(const StudyOptions& options, const StudyAnalysis& analysis,
                                        std::span<const StudyRun> records,
                                        std::span<const PredictedScaling> predicted);
}  // namespace trireme
