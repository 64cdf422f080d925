#include "trainer/evaluate/validation.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "trainer/batch_tensors.h"
#include "trainer/evaluate/collect.h"
#include "trainer/in_touch.h"
#include "trainer/progress.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr int64_t kBatch = 16;  // Part of what a validation loss means: never a tuning knob.

// Samples of one shape, and whose noise they get where it is not their own.
struct FixedBatch {
  std::vector<int64_t> samples;
  std::vector<int64_t> noise_samples;
};

std::vector<FixedBatch> validation_batches(const Session& session) {
  std::vector<FixedBatch> batches;
  const auto& classes = session.validation_dataset().classes();
  const Split everything(classes);
  for (size_t c = 0; c < classes.size(); ++c) {
    const bool own_files = session.validation_files != nullptr;
    const int64_t count = own_files ? classes[c].num_samples : session.split->num_validation(c);
    for (int64_t first = 0; first < count; first += kBatch) {
      FixedBatch batch;
      for (int64_t k = first; k < std::min(first + kBatch, count); ++k) {
        batch.samples.push_back(own_files ? everything.training_sample(c, k)
                                          : session.split->validation_sample(c, k));
      }
      batches.push_back(std::move(batch));
    }
  }
  return batches;
}

std::vector<FixedBatch> training_batches(const Session& session) {
  std::vector<int64_t> validating;
  for (const auto& batch : validation_batches(session)) {
    validating.insert(validating.end(), batch.samples.begin(), batch.samples.end());
  }
  const auto& classes = session.dataset->classes();
  int64_t total = 0;
  for (size_t c = 0; c < classes.size(); ++c) total += session.split->num_training(c);
  const int64_t count = std::min<int64_t>(total, static_cast<int64_t>(validating.size()));
  std::vector<FixedBatch> batches;
  int64_t j = 0;
  int64_t before = 0;  // Training samples of the classes before this one.
  for (size_t c = 0; c < classes.size(); ++c) {
    const int64_t end = before + session.split->num_training(c);
    FixedBatch batch;
    const auto flush = [&] {
      if (!batch.samples.empty()) batches.push_back(std::move(batch));
      batch = {};
    };
    for (; j < count; ++j) {
      const auto place = static_cast<int64_t>(static_cast<__int128>(j) * total / count);
      if (place >= end) break;
      batch.samples.push_back(session.split->training_sample(c, place - before));
      batch.noise_samples.push_back(validating[static_cast<size_t>(j)]);
      if (static_cast<int64_t>(batch.samples.size()) == kBatch) flush();
    }
    flush();
    before = end;
  }
  return batches;
}

double batch_loss(Session& session, const LatentDataset& dataset, const FixedBatch& fixed,
                  int point) {
  const int num_points = static_cast<int>(session.config.eval.timesteps);
  LatentBatch batch = make_evaluation_batch(dataset, session.draw, fixed.samples, point, num_points,
                                            fixed.noise_samples);
  const BatchTensors tensors = to_device(batch, session.device);
  const NoisedBatch noised = add_noise(*session.schedule, session.config.objective, tensors.latents,
                                       tensors.noise, batch.timesteps, batch.uniforms);
  const auto prediction =
      session.model->forward(noised.latents, noised.model_times, tensors.condition, std::nullopt);
  return sample_losses(prediction, noised).sum(at::kDouble).item<double>();
}

ValidationResult evaluate_batches(MpiEnvironment& mpi, Session& session,
                                  const LatentDataset& dataset,
                                  const std::vector<FixedBatch>& batches, const char* what) {
  const auto num_points = static_cast<size_t>(session.config.eval.timesteps);
  std::vector<double> sums(batches.size() * num_points, 0.0);
  Progress progress(what, static_cast<int64_t>(sums.size()),
                    mpi.rank() == 0 ? Progress::Voice::kLogs : Progress::Voice::kSilent);
  run_in_touch(
      mpi,
      [&](WorkReport& report) {
        const torch::NoGradGuard no_grad;
        for_own_groups(mpi, static_cast<int64_t>(sums.size()), 1, [&](int64_t first, int64_t) {
          const auto item = static_cast<size_t>(first);
          sums[item] = batch_loss(session, dataset, batches[item / num_points],
                                  static_cast<int>(item % num_points));
          report.advance(1);
        });
      },
      [&](int64_t done) { progress.report(done); });
  mpi.all_reduce_sum(sums);  // Each item is some rank's number plus zeros: exact.

  ValidationResult result;
  result.band_losses.assign(num_points, 0.0);
  for (const auto& batch : batches) {
    result.num_samples += static_cast<int64_t>(batch.samples.size());
  }
  check(result.num_samples > 0, "samples to evaluate");
  for (size_t item = 0; item < sums.size(); ++item)
    result.band_losses[item % num_points] += sums[item];
  for (double& band : result.band_losses) {
    band /= static_cast<double>(result.num_samples);
    result.loss += band / static_cast<double>(num_points);
  }
  return result;
}
}  // namespace

ValidationResult evaluate_validation(MpiEnvironment& mpi, Session& session) {
  return evaluate_batches(mpi, session, session.validation_dataset(), validation_batches(session),
                          "validation batches");
}

ValidationResult evaluate_training(MpiEnvironment& mpi, Session& session) {
  return evaluate_batches(mpi, session, *session.dataset, training_batches(session),
                          "batches of training samples");
}
}  // namespace trireme
