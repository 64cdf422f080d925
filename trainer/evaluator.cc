#include "trainer/evaluator.h"

#include <string>
#include <utility>

#include "core/formatted.h"
#include "trainer/evaluate/memorisation.h"
#include "trainer/evaluate/sample_grid.h"
#include "trainer/evaluate/sample_prompts.h"
#include "trainer/evaluate/sampling.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr int64_t kMaxCompared = 10000;  // Training latents that a sample is compared with.
}  // namespace

Evaluator::Evaluator(MpiEnvironment& mpi, Session& session, std::filesystem::path run_dir)
    : mpi_(mpi), session_(session), run_dir_(std::move(run_dir)) {
  const Config& config = session_.config;
  if (config.scores.metrics.empty() || config.eval.every_steps == 0) return;
  mpi_.run_on_all_ranks([&] { scorer_ = std::make_unique<Scorer>(session_); });
}

EvalMetrics Evaluator::evaluate(int64_t step, int64_t last_step, const WithAverage& with_average,
                                StepLog* log) {
  EvalMetrics metrics;
  if (session_.num_validation() > 0) metrics = validation_metrics(mpi_, session_, with_average);
  const bool scores = scorer_ && scores_are_due(session_.config.scores, step, last_step);
  if (!scores && !samples()) return metrics;
  const auto add = [&](const EvalMetrics& more) {
    metrics.insert(metrics.end(), more.begin(), more.end());
  };
  const auto generate = [&] {
    if (scores) add(score());
    if (samples()) add(sample(step, log));
  };
  if (with_average) {
    with_average(generate);
  } else {
    generate();
  }
  return metrics;
}

EvalMetrics Evaluator::score() {
  EvalMetrics metrics;
  for (const Score& score :
       scorer_->evaluate(mpi_, session_, score_cache(session_.config, run_dir_))) {
    metrics.emplace_back(score.name, score.value);
  }
  return metrics;
}

bool Evaluator::samples() const {
  const Config& config = session_.config;
  return config.sample.count > 0 &&
         (find_vae(config) || config.eval.memorisation == Memorisation::kOn);
}

// Draws, where there is a VAE, and compares with the training data.
EvalMetrics Evaluator::sample(int64_t step, StepLog* log) {
  const auto file = run_dir_ / "samples" / formatted("step-%08lld", static_cast<long long>(step));
  SamplePrompts prompts;
  mpi_.run_on_all_ranks([&] { prompts = choose_prompts(session_); });
  if (prompts.captions.empty()) return {};
  const at::Tensor latents = sample_latents(mpi_, session_, prompts);
  const auto vae = find_vae(session_.config);
  const auto picture = file.string() + ".png";
  if (vae) write_sample_grid(mpi_, session_, *vae, prompts, latents, picture);
  const bool searches = session_.config.eval.memorisation != Memorisation::kOff;
  NearestSearch search;
  if (searches) search = find_nearest_training(mpi_, session_, latents, kMaxCompared);
  // Nothing can stop it any more.
  if (vae && log != nullptr) log->picture(step, "samples", picture);
  if (!searches) return {};
  EvalMetrics metrics = memorisation_metrics(search);
  mpi_.run_on_all_ranks([&] {
    if (mpi_.rank() != 0 || metrics.empty()) return;
    write_nearest(*session_.dataset, prompts.captions, search, file.string() + ".nearest.jsonl");
  });
  return metrics;
}
}  // namespace trireme
