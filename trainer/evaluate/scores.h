#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dist/mpi_environment.h"
#include "trainer/evaluate/feature_rows.h"
#include "trainer/evaluate/frechet.h"
#include "trainer/session.h"

namespace trireme {

// A measure of generated pictures, by its name in metrics.jsonl.
struct Score {
  std::string name;
  double value = 0.0;
};

// Scores a model by the pictures it generates (docs/scores.md): fid, kid, clip_score,
// latent_frechet. The same code serves the training loop and `trireme eval`. Everything is dealt
// out to the ranks and independent of their number; no rank waits inside a collective for another's
// work.
class Scorer {
 public:
  // Loads the networks that scores.metrics need; not empty. Local, in run_on_all_ranks(): throws
  // UsageError where a metric lacks what it needs, InputError.
  explicit Scorer(const Session& session);
  ~Scorer();

  // Generates scores.count pictures with session.model for captions spread over the data, and
  // compares. The reference's features are computed, or read from `cache`, the first time. In the
  // order of scores.metrics. Collective.
  [[nodiscard]] std::vector<Score> evaluate(MpiEnvironment& mpi, Session& session,
                                            const std::filesystem::path& cache);

 private:
  struct Reference;
  [[nodiscard]] at::Tensor generate(MpiEnvironment& mpi, Session& session);
  void read_reference(MpiEnvironment& mpi, const Session& session,
                      const std::filesystem::path& cache);

  FeatureRows features_;
  std::unique_ptr<Reference> reference_;
};

// The scores of one folder of pictures against another, as they are: those of fid and kid that
// options.metrics names. Collective.
[[nodiscard]] std::vector<Score> score_folders(MpiEnvironment& mpi, const ScoresOptions& options,
                                               const std::filesystem::path& pictures,
                                               const std::filesystem::path& reference,
                                               const std::string& device);

// The folder of reference features: scores.cache, or cache/ in the run directory.
[[nodiscard]] std::filesystem::path score_cache(const Config& config,
                                                const std::filesystem::path& run_dir);
// scores.metrics is not empty, and scores are due at an evaluation of that step.
[[nodiscard]] bool scores_are_due(const ScoresOptions& options, int64_t step, int64_t last_step);
}  // namespace trireme
