#pragma once
#include <span>

#include "launcher/study_runner.h"

namespace trireme {

// Checks the runs that are left as `train` does before its first step: the configuration and how
// its batch is cut of each, and data and model of each variant. Throws the error of the first that
// cannot be run, naming it.
void check_study_runs(const StudyOptions& options, const StudyRunner& runner,
                      std::span<const StudyRun> records);
}  // namespace trireme
