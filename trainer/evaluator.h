#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>

#include "dist/mpi_environment.h"
#include "trainer/evaluate/eval_metrics.h"
#include "trainer/evaluate/scores.h"
#include "trainer/session.h"
#include "trainer/step_log.h"

namespace trireme {

// What a run measures at an evaluation: losses on held-out samples, scores of generated pictures,
// sample pictures and how near they are to training samples. Collective.
class Evaluator {
 public:
  // Calls what it is given while the model bears the averages of its weights.
  using WithAverage = std::function<void(const std::function<void()>&)>;

  // `mpi` and `session` outlive it. Pictures go to the folder `run_dir`/samples. Throws UsageError
  // and InputError on all ranks together.
  Evaluator(MpiEnvironment& mpi, Session& session, std::filesystem::path run_dir);

  // Of the weights after `step`. Where there is an average, losses are measured with and without
  // it, everything else with it. `log`, of rank 0, is given the pictures; null elsewhere.
  [[nodiscard]] EvalMetrics evaluate(int64_t step, int64_t last_step,
                                     const WithAverage& with_average, StepLog* log);

 private:
  [[nodiscard]] bool samples() const;
  [[nodiscard]] EvalMetrics score();
  [[nodiscard]] EvalMetrics sample(int64_t step, StepLog* log);

  MpiEnvironment& mpi_;
  Session& session_;
  std::filesystem::path run_dir_;
  std::unique_ptr<Scorer> scorer_;  // Null without scores.
};
}  // namespace trireme
