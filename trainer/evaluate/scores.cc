#include "trainer/evaluate/scores.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "core/error.h"
#include "data/latent_math.h"
#include "trainer/evaluate/collect.h"
#include "trainer/evaluate/reference_features.h"
#include "trainer/evaluate/sample_prompts.h"
#include "trainer/evaluate/sampling.h"
#include "trainer/in_touch.h"
#include "trainer/progress.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
std::filesystem::path vae_for_scores(const Session& session) {
  const auto& scores = session.config.scores;
  const auto vae = find_vae(session.config);
  const bool is_folder =
      scores.reference != "auto" && scores.reference != "validation" && scores.reference != "train";
  const bool latents_only = scores.metrics.size() == 1 && scores.metrics[0] == "latent_frechet";
  if (latents_only && !is_folder) return {};  // Nothing is decoded.
  if (vae) return *vae;
  throw UsageError(
      "scores.metrics need pictures, but there is no vae/ in or beside model.weights = '" +
      session.config.model.weights +
      "'. Give a diffusers folder that has one in sample.vae, or score latents alone: "
      "scores.metrics = [\"latent_frechet\"].");
}

at::Tensor part_of(const at::Tensor& rows, const FeatureRows::Part& part) {
  return rows.narrow(1, part.first, part.width);
}

// A score is every rank's, and rank 0's: decisions hang on it.
void agree(MpiEnvironment& mpi, std::vector<Score>& scores) {
  std::vector<double> values;
  for (const auto& score : scores) values.push_back(mpi.rank() == 0 ? score.value : 0.0);
  mpi.all_reduce_sum(values);
  for (size_t i = 0; i < scores.size(); ++i) scores[i].value = values[i];
}

double mean_of(const at::Tensor& values) { return values.to(at::kDouble).mean().item<double>(); }
}  // namespace

struct Scorer::Reference {
  at::Tensor rows;
  std::optional<FeatureStatistics> inception;
  std::optional<FeatureStatistics> latent;
};

Scorer::Scorer(const Session& session)
    : features_(session.config.scores, vae_for_scores(session), session.device) {
  const LatentShape& whole = session.validation_dataset().classes().front().shape;
  features_.set_latent_shape(cropped_shape(whole, session.config.data.crop));
}

Scorer::~Scorer() = default;

at::Tensor Scorer::generate(MpiEnvironment& mpi, Session& session) {
  const auto& options = session.config.scores;
  SamplePrompts prompts;
  mpi.run_on_all_ranks([&] {
    prompts = prompts_of_samples(session, spread_samples(session, options.count));
    if (has_metric(options, "clip_score") &&
        std::ranges::all_of(prompts.captions, [](const auto& text) { return text.empty(); })) {
      throw UsageError(
          "scores.metrics has \"clip_score\", but the data stores no captions (/text/captions). "
          "Leave clip_score out, or pack the pictures with captions.");
    }
  });
  at::Tensor rows = at::zeros({options.count, features_.width()});
  Progress progress("scored pictures' sampling steps", options.count * session.config.sample.steps,
                    mpi.rank() == 0 ? Progress::Voice::kLogs : Progress::Voice::kSilent);
  run_in_touch(
      mpi,
      [&](WorkReport& report) {
        const at::NoGradGuard no_grad;
        for_own_groups(mpi, options.count, options.batch, [&](int64_t first, int64_t n) {
          const at::Tensor latents =
              denoise(session, prompts, first, n, [&] { report.advance(n); });
          const auto begin = prompts.captions.begin() + first;
          rows.narrow(0, first, n).copy_(features_.of_latents(latents, {begin, begin + n}));
        });
      },
      [&](int64_t done) { progress.report(done); });
  collect_rows(mpi, rows);
  return rows;
}

void Scorer::read_reference(MpiEnvironment& mpi, const Session& session,
                            const std::filesystem::path& cache) {
  if (reference_ || features_.reference_width() == 0) return;
  PictureSet pictures;
  mpi.run_on_all_ranks([&] { pictures = reference_pictures(session, features_); });
  auto reference = std::make_unique<Reference>();
  reference->rows = feature_rows_of(mpi, pictures, features_, session.config.scores.batch, cache);
  if (has_metric(session.config.scores, "fid")) {
    reference->inception = feature_statistics(mpi, part_of(reference->rows, features_.inception()));
  }
  if (has_metric(session.config.scores, "latent_frechet")) {
    reference->latent = feature_statistics(mpi, part_of(reference->rows, features_.latent()));
  }
  reference_ = std::move(reference);
}

std::vector<Score> Scorer::evaluate(MpiEnvironment& mpi, Session& session,
                                    const std::filesystem::path& cache) {
  read_reference(mpi, session, cache);
  const at::Tensor rows = generate(mpi, session);
  std::vector<Score> scores;
  for (const auto& name : session.config.scores.metrics) {
    double value = 0.0;
    if (name == "fid") {
      value = frechet_distance(mpi, part_of(rows, features_.inception()), *reference_->inception);
    } else if (name == "kid") {
      value = kernel_distance(mpi, part_of(rows, features_.inception()),
                              part_of(reference_->rows, features_.inception()));
    } else if (name == "latent_frechet") {
      value = frechet_distance(mpi, part_of(rows, features_.latent()), *reference_->latent);
    } else {
      value = mean_of(part_of(rows, features_.clip()));
    }
    scores.push_back({name, value});
  }
  agree(mpi, scores);
  return scores;
}

std::vector<Score> score_folders(MpiEnvironment& mpi, const ScoresOptions& options,
                                 const std::filesystem::path& pictures,
                                 const std::filesystem::path& reference,
                                 const std::string& device) {
  std::optional<FeatureRows> features;
  std::array<PictureSet, 2> sets;
  mpi.run_on_all_ranks([&] {
    features.emplace(options, "", device);
    sets = {folder_pictures(pictures, 0, *features), folder_pictures(reference, 0, *features)};
  });
  std::array<at::Tensor, 2> rows;
  for (size_t i = 0; i < 2; ++i) {
    rows[i] = feature_rows_of(mpi, sets[i], *features, options.batch, options.cache);
  }
  std::vector<Score> scores;
  for (const auto& name : options.metrics) {
    scores.push_back(
        {name, name == "kid" ? kernel_distance(mpi, rows[0], rows[1])
                             : frechet_distance(mpi, rows[0], feature_statistics(mpi, rows[1]))});
  }
  agree(mpi, scores);
  return scores;
}

std::filesystem::path score_cache(const Config& config, const std::filesystem::path& run_dir) {
  return config.scores.cache.empty() ? run_dir / "cache"
                                     : std::filesystem::path(config.scores.cache);
}

bool scores_are_due(const ScoresOptions& options, int64_t step, int64_t last_step) {
  if (options.metrics.empty()) return false;
  return options.every_steps == 0 || step % options.every_steps == 0 || step == last_step;
}
}  // namespace trireme
