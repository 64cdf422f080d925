#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/image.h"
#include "dist/mpi_environment.h"
#include "launcher/report_table.h"
#include "trainer/evaluate/sample_prompts.h"
#include "trainer/session.h"

namespace trireme {

// What fine-tuning did, for captions of the validation data: pictures before it, after it, and the
// real one; and how far each is from what was trained on, so that memory cannot pass for skill.
struct SampleComparison {
  static constexpr int64_t kColumns = 3;  // before, after, real
  struct Row {
    std::string caption;
    double distance = 0.0;       // Of the sample after training to its nearest training latent.
    double distance_real = 0.0;  // Of the real latent to its nearest.
    std::string nearest;         // That sample's caption.
  };
  std::vector<Row> rows;
  SamplePrompts prompts;
  std::vector<Image> images;  // Row-major, kColumns a row.
  int64_t num_compared = 0;   // Training latents looked at: all, or as many, evenly spaced.
  int64_t num_training = 0;
  double loss_before = 0.0;  // Validation loss.
  double loss_after = 0.0;
};

// Takes config.sample.count validation samples evenly spaced by index: a rule, not a choice.
// Distance is the root mean square over a latent's elements as the model sees them, posterior
// means. `session` bears the trained model; afterwards the model that training began with,
// config.model.weights (or its random start). Collective. Throws UsageError where there is no
// validation data.
[[nodiscard]] SampleComparison compare_samples(MpiEnvironment& mpi, Session& session,
                                               const std::filesystem::path& vae);

// Its pictures, before | after | real a row; more than eight rows stand side by side in blocks.
// REQUIRES: some images.
[[nodiscard]] Image comparison_grid(const SampleComparison& comparison);

void report(const SampleComparison& comparison, ReportTable& table);
}  // namespace trireme
