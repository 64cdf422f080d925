#include "launcher/sample_comparison.h"

#include <algorithm>

#include "core/error.h"
#include "trainer/evaluate/memorisation.h"
#include "trainer/evaluate/sample_grid.h"
#include "trainer/evaluate/sampling.h"
#include "trainer/evaluate/validation.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr int64_t kMaxBlockRows = 8;
constexpr int64_t kMaxCompared = 100000;

std::string caption_of(const LatentDataset& data, int64_t sample) {
  return data.text() ? data.caption(data.caption_rows(sample).front()) : data.id(sample);
}

// Of the first class of the validation data, which is where spread_samples() takes them from.
at::Tensor real_latents(const Session& session, const std::vector<int64_t>& samples) {
  const LatentDataset& data = session.validation_dataset();
  std::vector<at::Tensor> latents;
  for (const int64_t sample : samples) {
    latents.push_back(
        mean_latent(data, sample, data.classes().front().shape, session.config.data.crop)
            .unsqueeze(0));
  }
  return torch::cat(latents);
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
  SamplePrompts& prompts = result.prompts;
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
  mpi.run_on_all_ranks([&] { real = real_latents(session, samples); });
  interleave({decode_images(mpi, vae, session.device, before),
              decode_images(mpi, vae, session.device, after),
              decode_images(mpi, vae, session.device, real)},
             result.images);
  const auto search = find_nearest_training(mpi, session, after, kMaxCompared);
  const auto search_real = find_nearest_training(mpi, session, real, kMaxCompared);
  result.num_compared = search.num_compared;
  mpi.run_on_all_ranks([&] {
    if (mpi.rank() != 0) return;
    result.num_training = session.num_training();
    for (size_t i = 0; i < samples.size(); ++i) {
      const int64_t nearest = search.nearest[i].sample;
      result.rows.push_back({.caption = prompts.captions[i],
                             .distance = search.nearest[i].distance,
                             .distance_real = search_real.nearest[i].distance,
                             .nearest = nearest < 0 ? "" : caption_of(*session.dataset, nearest)});
    }
  });
  return result;
}

Image comparison_grid(const SampleComparison& comparison) {
  const auto num_rows = static_cast<int64_t>(comparison.images.size()) / SampleComparison::kColumns;
  const int64_t num_blocks = (num_rows + kMaxBlockRows - 1) / kMaxBlockRows;
  const int64_t block_rows = (num_rows + num_blocks - 1) / num_blocks;
  const Image& first = comparison.images.front();
  const Image blank{.width = first.width,
                    .height = first.height,
                    .pixels = std::vector<uint8_t>(first.pixels.size(), 255)};
  std::vector<Image> cells;  // A blank column between blocks.
  for (int64_t row = 0; row < block_rows; ++row) {
    for (int64_t block = 0; block < num_blocks; ++block) {
      if (block > 0) cells.push_back(blank);
      const int64_t place = (block * block_rows + row) * SampleComparison::kColumns;
      for (int64_t column = 0; column < SampleComparison::kColumns; ++column) {
        const auto index = static_cast<size_t>(place + column);
        cells.push_back(index < comparison.images.size() ? comparison.images[index] : blank);
      }
    }
  }
  return tile(cells, num_blocks * (SampleComparison::kColumns + 1) - 1);
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
