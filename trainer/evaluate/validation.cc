#include "trainer/evaluate/validation.h"

#include <algorithm>
#include <exception>

#include "core/error.h"
#include "trainer/batch_tensors.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr int64_t kBatch = 16;  // Part of what a validation loss means: never a tuning knob.

std::vector<std::vector<int64_t>> fixed_batches(const Session& session) {
  std::vector<std::vector<int64_t>> batches;
  const auto& classes = session.validation_dataset().classes();
  const Split everything(classes);
  for (size_t c = 0; c < classes.size(); ++c) {
    const bool own_files = session.validation_files != nullptr;
    const int64_t count = own_files ? classes[c].num_samples : session.split->num_validation(c);
    for (int64_t first = 0; first < count; first += kBatch) {
      std::vector<int64_t> samples;
      for (int64_t k = first; k < std::min(first + kBatch, count); ++k) {
        samples.push_back(own_files ? everything.training_sample(c, k)
                                    : session.split->validation_sample(c, k));
      }
      batches.push_back(std::move(samples));
    }
  }
  return batches;
}

double batch_loss(Session& session, const std::vector<int64_t>& samples, int point) {
  const int num_points = static_cast<int>(session.config.eval.timesteps);
  LatentBatch batch =
      make_evaluation_batch(session.validation_dataset(), session.draw, samples, point, num_points);
  const BatchTensors tensors = to_device(batch, session.device);
  const NoisedBatch noised = add_noise(*session.schedule, session.config.objective, tensors.latents,
                                       tensors.noise, batch.timesteps, batch.uniforms);
  const auto prediction =
      session.model->forward(noised.latents, noised.model_times, tensors.condition, std::nullopt);
  return sample_losses(prediction, noised).sum(at::kDouble).item<double>();
}
}  // namespace

ValidationResult evaluate_validation(MpiEnvironment& mpi, Session& session) {
  const torch::NoGradGuard no_grad;
  const auto batches = fixed_batches(session);
  const auto num_points = static_cast<size_t>(session.config.eval.timesteps);
  std::vector<double> sums(batches.size() * num_points, 0.0);
  mpi.run_on_all_ranks([&] {
    for (size_t item = 0; item < sums.size(); ++item) {
      if (item % static_cast<size_t>(mpi.world_size()) != static_cast<size_t>(mpi.rank())) continue;
      sums[item] =
          batch_loss(session, batches[item / num_points], static_cast<int>(item % num_points));
    }
  });
  mpi.all_reduce_sum(sums);  // Each item is some rank's number plus zeros: exact.

  ValidationResult result;
  result.band_losses.assign(num_points, 0.0);
  for (const auto& batch : batches) result.num_samples += static_cast<int64_t>(batch.size());
  check(result.num_samples > 0, "validation samples to evaluate");
  for (size_t item = 0; item < sums.size(); ++item)
    result.band_losses[item % num_points] += sums[item];
  for (double& band : result.band_losses) {
    band /= static_cast<double>(result.num_samples);
    result.loss += band / static_cast<double>(num_points);
  }
  return result;
}
}  // namespace trireme
