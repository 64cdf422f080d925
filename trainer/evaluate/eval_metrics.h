#pragma once
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dist/mpi_environment.h"
#include "trainer/evaluate/validation.h"
#include "trainer/session.h"

namespace trireme {

// The numbers of one evaluation, in the order in which metrics.jsonl has them
// (docs/run_directory.md). Any of them can stop a run early or choose the best checkpoint.
using EvalMetrics = std::vector<std::pair<std::string, double>>;

[[nodiscard]] std::optional<double> find_metric(const EvalMetrics& metrics, std::string_view name);

// Losses of the weights that the session's model bears and, where `with_average` swaps its averages
// in and out, of those: validation, by timestep band, and the overfit gap where
// config.eval.overfit_gap asks for it. Collective. REQUIRES: session.num_validation() > 0.
[[nodiscard]] EvalMetrics validation_metrics(
    MpiEnvironment& mpi, Session& session,
    const std::function<void(const std::function<void()>&)>& with_average = {});
}  // namespace trireme
