#include "launcher/sample_comparison.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "core/error.h"
#include "trainer/evaluate/sample_prompts.h"
#include "trainer/evaluate/sampling.h"
#include "trainer/evaluate/validation.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr int64_t kMaxCompared = 100000;

std::string caption_of(const LatentDataset& data, int64_t sample) {
  return data.text() ? data.caption(data.caption_rows(sample).front()) : data.id(sample);
}

// Posterior mean, scaled: (elements).
std::vector<float> latent_mean(const LatentDataset& data, int64_t sample, size_t num_elements) {
  std::vector<float> latent(num_elements);
  const std::vector<float> zeros(data.is_moments(sample) ? num_elements : 0, 0.0F);
  data.read_latent(sample, zeros, latent);
  return latent;
}

at::Tensor real_latents(const Session& session, const std::vector<int64_t>& samples,
                        const LatentShape& shape) {
  std::vector<at::Tensor> latents;
  for (const int64_t sample : samples) {
    auto mean = latent_mean(session.validation_dataset(), sample,
                            static_cast<size_t>(shape.num_elements()));
    latents.push_back(torch::tensor(mean).view({1, shape.channels, shape.height, shape.width}));
  }
  return torch::cat(latents);
}

struct Nearest {
  double distance = std::numeric_limits<double>::infinity();
  int64_t sample = -1;
};

double root_mean_square(std::span<const float> a, std::span<const float> b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += difference * difference;
  }
  return std::sqrt(sum / static_cast<double>(a.size()));
}

// For each of `latents` (n, C, H, W) the nearest training latent of the same shape.
std::vector<Nearest> find_nearest(const Session& session, const at::Tensor& latents,
                                  const LatentShape& shape, int64_t* num_compared) {
  const auto size = static_cast<size_t>(shape.num_elements());
  const at::Tensor flat = latents.contiguous();
  std::vector<Nearest> nearest(static_cast<size_t>(latents.size(0)));
  const auto& classes = session.dataset->classes();
  for (size_t c = 0; c < classes.size(); ++c) {
    if (classes[c].shape != shape) continue;
    const int64_t available = session.split->num_training(c);
    *num_compared = std::min(available, kMaxCompared);
    for (int64_t k = 0; k < *num_compared; ++k) {
      const int64_t sample = session.split->training_sample(c, k * available / *num_compared);
      const auto training = latent_mean(*session.dataset, sample, size);
      for (size_t i = 0; i < nearest.size(); ++i) {
        const double distance =
            root_mean_square(std::span(flat.data_ptr<float>() + i * size, size), training);
        if (distance < nearest[i].distance) nearest[i] = {distance, sample};
      }
    }
  }
  return nearest;
}

void put_back_first_model(Session& session) {
  session.model = open_model(session.config);
  session.model->to_device(session.device);
}

void interleave(const std::vector<std::vector<Image>>& columns, std::vector<Image>& images) {
  for (size_t row = 0; row < columns.front().size(); ++row) {
    for (const auto& column : columns) images.push_back(column[row]);
  }
}
}  // namespace

SampleComparison compare_samples(MpiEnvironment& mpi, Session& session,
                                 const std::filesystem::path& vae) {
  SampleComparison result;
  std::vector<int64_t> samples;
  SamplePrompts prompts;
  mpi.run_on_all_ranks([&] {
    if (session.num_validation() == 0) {
      throw UsageError(
          "--compare needs validation data, for captions that were never trained. Give some with "
          "--set "
          "'data.validation=[\"val.h5\"]'.");
    }
    samples =
        spread_samples(session, std::min(session.config.sample.count, session.num_validation()));
    if (samples.empty())
      throw UsageError("the first resolution of the data has no validation samples to compare.");
    prompts = prompts_of_samples(session, samples);
  });
  const at::Tensor after = sample_latents(mpi, session, prompts);
  result.loss_after = evaluate_validation(mpi, session).loss;
  mpi.run_on_all_ranks([&] { put_back_first_model(session); });
  const at::Tensor before = sample_latents(mpi, session, prompts);
  result.loss_before = evaluate_validation(mpi, session).loss;

  at::Tensor real;
  mpi.run_on_all_ranks([&] { real = real_latents(session, samples, prompts.shape); });
  interleave({decode_images(mpi, vae, session.device, before),
              decode_images(mpi, vae, session.device, after),
              decode_images(mpi, vae, session.device, real)},
             result.images);
  mpi.run_on_all_ranks([&] {
    if (mpi.rank() != 0) return;
    const auto nearest = find_nearest(session, after, prompts.shape, &result.num_compared);
    const auto nearest_real = find_nearest(session, real, prompts.shape, &result.num_compared);
    result.num_training = session.num_training();
    for (size_t i = 0; i < samples.size(); ++i) {
      result.rows.push_back({.caption = prompts.captions[i],
                             .distance = nearest[i].distance,
                             .distance_real = nearest_real[i].distance,
                             .nearest = nearest[i].sample < 0
                                            ? ""
                                            : caption_of(*session.dataset, nearest[i].sample)});
    }
  });
  return result;
}

void report(const SampleComparison& comparison, ReportTable& table) {
  table.row("validation loss", format_number(comparison.loss_before) + " before, " +
                                   format_number(comparison.loss_after) + " after");
  table.row("compared with", format_plural(comparison.num_compared, "training latent") +
                                 (comparison.num_compared < comparison.num_training
                                      ? " of " + format_count(comparison.num_training)
                                      : ""));
  table.heading("distance to the nearest training picture (root mean square of latents)");
  for (const auto& row : comparison.rows) {
    table.row(one_line(row.caption, 40),
              format_number(row.distance) + " from \"" + one_line(row.nearest, 40) +
                  "\"; the real picture's nearest is at " + format_number(row.distance_real));
  }
}
}  // namespace trireme
