#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "trainer/config.h"

namespace trireme {

// Where a run begins: anew with a seed, or with the weights, optimizer state and place in the data
// of a checkpoint (study.fork), whose run's seed it keeps.
struct RunStart {
  int64_t seed = 0;
  std::string checkpoint = {};  // Its folder; empty: anew, and nothing of the following.
  int64_t step = 0;
  int64_t samples = 0;  // Consumed before.
  int64_t global_batch = 0;
  std::vector<int64_t> grow_at = {};  // How the batch had grown to this.
  std::vector<int64_t> grow_to = {};
};

// What a study file asks for (docs/study.md).
struct StudyOptions {
  std::string name = "study";
  std::string dir;              // Empty: "studies/NAME".
  std::string config;           // The CONFIG that every run starts from.
  std::vector<RunStart> forks;  // Or the checkpoints, with the configurations of their runs.
  std::string metric = "val_loss";
  std::optional<double> target;  // Absent: what the worst batch reaches at its best learning rate.
  int64_t budget_samples = 0;    // Of a run, at most.
  int64_t eval_samples = 0;      // Between evaluations; 0: a twentieth of the budget.
  double tolerance = 0.01;       // Relative, for the largest batch that loses nothing.

  // The prior: lr x f(batch / lr_base_batch), tried at each factor; where the best factor is the
  // smallest or largest, one more is tried beyond it, lr_extend times at most.
  double lr = 1e-4;
  int64_t lr_base_batch = 0;
  LrScaling lr_rule = LrScaling::kSqrt;  // linear, sqrt or power.
  double lr_power = 0.6;
  int64_t lr_extend = 2;

  // The grid: every combination is a run.
  std::vector<int64_t> batch;
  std::vector<double> lr_factor = {0.5, 1.0, 2.0};
  std::vector<int64_t> seed = {1, 2};
  std::vector<int64_t> ranks = {1};
  std::vector<int64_t> warmup_samples = {0};
  // Any other key of CONFIG with its values, as TOML.
  std::vector<std::pair<std::string, std::vector<std::string>>> keys;

  // Throws UsageError for what cannot be run.
  void validate() const;
  [[nodiscard]] std::string directory() const { return dir.empty() ? "studies/" + name : dir; }
  // The CONFIG of a run from `start`.
  [[nodiscard]] std::string config_of(const RunStart& start) const {
    return start.checkpoint.empty() ? config : start.checkpoint + "/config.toml";
  }
};

// One run of the grid.
struct RunSpec {
  int64_t batch = 0;
  double lr_factor = 1.0;
  double lr = 0.0;
  int64_t seed = 0;
  int64_t ranks = 1;
  int64_t warmup_samples = 0;
  RunStart start;
  std::string variant;            // "optim.weight_decay=0.1, …", "forked at 4096 samples".
  std::vector<std::string> sets;  // --set arguments, all of them.
  std::string name;               // Of its folder; differs between any two runs.
};

[[nodiscard]] double prior_lr(const StudyOptions& options, int64_t batch);
// In the order in which they are run: seeds innermost, so that a comparison is whole early.
[[nodiscard]] std::vector<RunSpec> expand_grid(const StudyOptions& options);
// The runs at another learning-rate factor, of one batch and variant.
[[nodiscard]] std::vector<RunSpec> expand_factor(const StudyOptions& options, int64_t batch,
                                                 const std::string& variant, double lr_factor);
}  // namespace trireme
