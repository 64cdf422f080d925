#include "study/study_grid.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include "core/error.h"

namespace trireme {
namespace {
constexpr int64_t kNumEvaluations = 20;  // Of a run, unless the file says otherwise.
constexpr int64_t kNumCheckpoints = 4;

std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.9g", value);
  return text;
}

// In a run's name.
std::string factor_text(double factor) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.4g", factor);
  return text;
}

struct Variant {
  std::string text;
  std::vector<std::string> sets;
  std::string suffix;
  std::vector<RunStart> starts;
};

// Forks at the same place, of different seeds, are repetitions.
std::vector<Variant> variants_of_starts(const StudyOptions& options) {
  if (options.forks.empty()) {
    Variant anew;
    for (const int64_t seed : options.seed) anew.starts.push_back({.seed = seed});
    return {anew};
  }
  std::map<int64_t, Variant> by_place;
  for (const auto& fork : options.forks) {
    Variant& variant = by_place[fork.samples];
    variant.text = "forked at " + std::to_string(fork.samples) + " samples";
    variant.suffix = "-at" + std::to_string(fork.samples);
    variant.starts.push_back(fork);
  }
  std::vector<Variant> variants;
  for (auto& [place, variant] : by_place) variants.push_back(std::move(variant));
  return variants;
}

std::vector<Variant> variants_of(const StudyOptions& options) {
  std::vector<Variant> variants = variants_of_starts(options);
  for (const auto& [key, values] : options.keys) {
    std::vector<Variant> next;
    for (const auto& before : variants) {
      for (size_t i = 0; i < values.size(); ++i) {
        Variant variant = before;
        const std::string set = key + "=" + values[i];
        variant.text += (variant.text.empty() ? "" : ", ") + set;
        variant.sets.push_back(set);
        variant.suffix += "-k" + std::to_string(i);
        next.push_back(std::move(variant));
      }
    }
    variants = std::move(next);
  }
  return variants;
}

RunSpec make_run(const StudyOptions& options, int64_t batch, double factor,
                 const Variant& variant) {
  RunSpec run;
  run.batch = batch;
  run.lr_factor = factor;
  run.lr = prior_lr(options, batch) * factor;
  run.variant = variant.text;
  run.sets = variant.sets;
  return run;
}

std::string list_text(const std::vector<int64_t>& values) {
  std::string text;
  for (const int64_t value : values) text += (text.empty() ? "" : ", ") + std::to_string(value);
  return "[" + text + "]";
}

// The batch is the run's from the fork on, and so is its learning rate.
void add_fork_sets(const RunSpec& run, std::vector<std::string>& sets) {
  RunStart start = run.start;
  if (run.batch > start.global_batch) {
    start.grow_at.push_back(start.samples);
    start.grow_to.push_back(run.batch);
  }
  sets.push_back("batch.grow_at=" + list_text(start.grow_at));
  sets.push_back("batch.grow_to=" + list_text(start.grow_to));
  sets.emplace_back("lr_schedule.name=\"constant\"");
  sets.emplace_back("lr_schedule.warmup_samples=0");
  sets.emplace_back("lr_schedule.warmup_fraction=0.0");
}

// Fills in what depends on start, ranks and warm-up.
RunSpec completed(const StudyOptions& options, RunSpec run, const RunStart& start, int64_t ranks,
                  int64_t warmup, const std::string& suffix) {
  run.start = start;
  run.seed = start.seed;
  run.ranks = ranks;
  run.warmup_samples = warmup;
  const int64_t steps = std::max<int64_t>(1, options.budget_samples / run.batch);
  const int64_t between =
      options.eval_samples > 0 ? options.eval_samples : options.budget_samples / kNumEvaluations;
  const auto add = [&run](const std::string& key, const std::string& value) {
    run.sets.push_back(key + "=" + value);
  };
  add("run.steps", std::to_string(start.step + steps));
  if (start.checkpoint.empty()) add("run.seed", std::to_string(start.seed));
  add("run.name", "\"" + options.name + "\"");
  if (start.checkpoint.empty()) {
    add("batch.global", std::to_string(run.batch));
  } else {
    add_fork_sets(run, run.sets);
  }
  add("optim.lr", number_text(run.lr));
  add("optim.lr_base_batch", std::to_string(run.batch));  // So that CONFIG scales nothing.
  add("lr_schedule.warmup_steps", std::to_string(warmup / run.batch));
  add("eval.every_steps", std::to_string(std::max<int64_t>(1, between / run.batch)));
  add("checkpoint.every_steps", std::to_string(std::max<int64_t>(1, steps / kNumCheckpoints)));
  add("checkpoint.keep", "1");
  add("sample.count", "0");
  char name[128];
  std::snprintf(name, sizeof(name), "b%05lld-f%s-w%lld-r%lld%s-s%lld",
                static_cast<long long>(run.batch), factor_text(run.lr_factor).c_str(),
                static_cast<long long>(warmup), static_cast<long long>(ranks), suffix.c_str(),
                static_cast<long long>(start.seed));
  run.name = name;
  return run;
}

void add_runs(const StudyOptions& options, int64_t batch, double factor, const Variant& variant,
              std::vector<RunSpec>& runs) {
  for (const int64_t warmup : options.warmup_samples) {
    for (const int64_t ranks : options.ranks) {
      for (const RunStart& start : variant.starts) {
        runs.push_back(completed(options, make_run(options, batch, factor, variant), start, ranks,
                                 warmup, variant.suffix));
      }
    }
  }
}

// The nearest budget that every batch divides; 0 where that is beyond any training.
int64_t nearest_budget(const StudyOptions& options) {
  constexpr int64_t kMost = int64_t{1} << 40;
  int64_t multiple = 1;
  for (const int64_t size : options.batch) {
    const int64_t factor = size / std::gcd(multiple, size);
    if (factor > kMost / multiple) return 0;
    multiple *= factor;
  }
  return std::max(multiple, (options.budget_samples + multiple / 2) / multiple * multiple);
}

// Runs are compared at equal samples, so none may end before the budget does.
void validate_budget(const StudyOptions& options) {
  for (const int64_t size : options.batch) {
    const std::string text = "grid.batch holds " + std::to_string(size);
    const std::string budget = std::to_string(options.budget_samples);
    if (size > options.budget_samples) {
      throw UsageError(text + ", more than the budget of " + budget +
                       " samples. Raise study.budget_samples.");
    }
    if (options.budget_samples % size == 0) continue;
    const int64_t nearest = nearest_budget(options);
    throw UsageError(text + ", which does not divide study.budget_samples = " + budget +
                     ": runs would not see equal samples. " +
                     (nearest > 0 ? "The nearest budget that every batch divides is " +
                                        std::to_string(nearest) + "."
                                  : std::string("Choose batches that have a common multiple, such "
                                                "as powers of two.")));
  }
}

// Runs are told apart by their names.
void validate_factors(const StudyOptions& options) {
  std::map<std::string, double> seen;
  for (const double factor : options.lr_factor) {
    const auto [found, is_new] = seen.try_emplace(factor_text(factor), factor);
    if (is_new) continue;
    throw UsageError("grid.lr_factor holds " + number_text(found->second) + " and " +
                     number_text(factor) +
                     ", which are the same in four digits, as names of runs have them. Keep one.");
  }
}

void validate_forks(const StudyOptions& options) {
  if (!options.config.empty()) {
    throw UsageError(
        "study.config and study.fork are both set; branches take the configuration of their "
        "checkpoint. Remove study.config.");
  }
  if (options.warmup_samples != std::vector<int64_t>{0}) {
    throw UsageError(
        "grid.warmup_samples cannot be set with study.fork: branches have no warm-up.");
  }
  const int64_t smallest = std::ranges::min(options.batch);
  std::set<std::pair<int64_t, int64_t>> seen;
  for (const auto& fork : options.forks) {
    if (smallest < fork.global_batch) {
      throw UsageError("grid.batch holds " + std::to_string(smallest) +
                       ", less than the batch of " + fork.checkpoint + ", " +
                       std::to_string(fork.global_batch) +
                       ": a branch keeps its batch or grows it.");
    }
    if (!seen.insert({fork.samples, fork.seed}).second) {
      throw UsageError("study.fork holds two checkpoints of seed " + std::to_string(fork.seed) +
                       " after " + std::to_string(fork.samples) + " samples. Keep one of them.");
    }
  }
}
}  // namespace

void StudyOptions::validate() const {
  if (config.empty() && forks.empty()) {
    throw UsageError("study.config is missing: the CONFIG of every run.");
  }
  if (batch.empty()) throw UsageError("grid.batch is missing: the global batches to study.");
  if (budget_samples < 1) throw UsageError("study.budget_samples is missing: samples of a run.");
  if (lr_base_batch < 1) {
    throw UsageError("study.lr_base_batch is missing: the global batch that study.lr is for.");
  }
  validate_budget(*this);
  validate_factors(*this);
  if (!forks.empty()) validate_forks(*this);
}

double prior_lr(const StudyOptions& options, int64_t batch) {
  const double ratio = static_cast<double>(batch) / static_cast<double>(options.lr_base_batch);
  switch (options.lr_rule) {
    case LrScaling::kLinear:
      return options.lr * ratio;
    case LrScaling::kPower:
      return options.lr * std::pow(ratio, options.lr_power);
    default:
      return options.lr * std::sqrt(ratio);
  }
}

std::vector<RunSpec> expand_grid(const StudyOptions& options) {
  std::vector<RunSpec> runs;
  for (const auto& variant : variants_of(options)) {
    for (const int64_t batch : options.batch) {
      for (const double factor : options.lr_factor) add_runs(options, batch, factor, variant, runs);
    }
  }
  return runs;
}

std::vector<RunSpec> expand_factor(const StudyOptions& options, int64_t batch,
                                   const std::string& variant, double lr_factor) {
  std::vector<RunSpec> runs;
  for (const auto& candidate : variants_of(options)) {
    if (candidate.text == variant) add_runs(options, batch, lr_factor, candidate, runs);
  }
  return runs;
}
}  // namespace trireme
