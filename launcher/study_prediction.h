#pragma once
#include <span>
#include <vector>

#include "launcher/study_runner.h"
#include "study/study_report.h"

namespace trireme {

// What `plan` says of the rank counts that a study's first variant measured, on the machine that
// its finished runs recorded. Empty for a single rank count, for runs of several kinds of machine,
// for GPUs that the planner does not know, and for models it cannot cost.
[[nodiscard]] std::vector<PredictedScaling> predict_study(const StudyRunner& runner,
                                                          const StudyAnalysis& analysis,
                                                          std::span<const StudyRun> records);
}  // namespace trireme
