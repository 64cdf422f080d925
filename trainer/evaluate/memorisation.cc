#include "trainer/evaluate/memorisation.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "core/files.h"
#include "data/latent_math.h"
#include "trainer/in_touch.h"
#include "trainer/run_directory.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
double root_mean_square(std::span<const float> a, std::span<const float> b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += difference * difference;
  }
  return std::sqrt(sum / static_cast<double>(a.size()));
}

// Keeps the two nearest; of equally near ones the lower index.
void note(NearestTraining& nearest, double distance, int64_t sample) {
  const bool is_nearer =
      distance < nearest.distance || (distance == nearest.distance && sample < nearest.sample);
  if (is_nearer) {
    nearest.second_distance = nearest.distance;
    nearest.distance = distance;
    nearest.sample = sample;
  } else {
    nearest.second_distance = std::min(nearest.second_distance, distance);
  }
}

// Every rank's findings into one. Each entry is one rank's number plus zeros: exact.
void merge(MpiEnvironment& mpi, std::vector<NearestTraining>& nearest) {
  constexpr size_t kNumbers = 3;
  const size_t count = nearest.size() * kNumbers;
  std::vector<double> all(count * static_cast<size_t>(mpi.world_size()), 0.0);
  for (size_t i = 0; i < nearest.size(); ++i) {
    double* mine = all.data() + count * static_cast<size_t>(mpi.rank()) + i * kNumbers;
    const bool has_second = std::isfinite(nearest[i].second_distance);
    mine[0] = static_cast<double>(nearest[i].sample + 1);  // 0: none.
    mine[1] = nearest[i].sample < 0 ? 0.0 : nearest[i].distance;
    mine[2] = has_second ? nearest[i].second_distance : -1.0;
  }
  mpi.all_reduce_sum(all);
  for (size_t i = 0; i < nearest.size(); ++i) {
    nearest[i] = {};
    for (size_t rank = 0; rank < static_cast<size_t>(mpi.world_size()); ++rank) {
      const double* found = all.data() + count * rank + i * kNumbers;
      if (found[0] == 0.0) continue;
      note(nearest[i], found[1], static_cast<int64_t>(found[0]) - 1);
      if (found[2] >= 0) {
        nearest[i].second_distance = std::min(nearest[i].second_distance, found[2]);
      }
    }
  }
}
}  // namespace

at::Tensor mean_latent(const LatentDataset& dataset, int64_t sample, const LatentShape& whole,
                       int64_t crop) {
  at::Tensor latent = torch::empty({whole.channels, whole.height, whole.width});
  const auto size = static_cast<size_t>(latent.numel());
  const std::vector<float> zeros(dataset.is_moments(sample) ? size : 0, 0.0F);
  dataset.read_latent(sample, zeros, std::span(latent.data_ptr<float>(), size));
  const LatentShape part = cropped_shape(whole, crop);
  return latent.narrow(1, (whole.height - part.height) / 2, part.height)
      .narrow(2, (whole.width - part.width) / 2, part.width)
      .contiguous();
}

NearestSearch find_nearest_training(MpiEnvironment& mpi, const Session& session,
                                    const at::Tensor& latents, int64_t max_compared) {
  NearestSearch search;
  search.nearest.resize(static_cast<size_t>(latents.size(0)));
  const at::Tensor flat = latents.to(torch::kCPU, torch::kFloat).contiguous();
  const LatentShape shape{latents.size(1), latents.size(2), latents.size(3)};
  const auto size = static_cast<size_t>(shape.num_elements());
  const auto& classes = session.dataset->classes();
  const int64_t crop = session.config.data.crop;
  const auto fits = [&](size_t c) { return cropped_shape(classes[c].shape, crop) == shape; };
  int64_t available = 0;
  for (size_t c = 0; c < classes.size(); ++c) {
    if (fits(c)) available += session.split->num_training(c);
  }
  search.num_compared = std::min(available, max_compared);
  run_in_touch(mpi, [&](WorkReport& report) {
    int64_t before = 0;
    int64_t j = 0;
    for (size_t c = 0; c < classes.size(); ++c) {
      if (!fits(c)) continue;
      const int64_t end = before + session.split->num_training(c);
      for (; j < search.num_compared; ++j) {
        const auto place =
            static_cast<int64_t>(static_cast<__int128>(j) * available / search.num_compared);
        if (place >= end) break;
        if (j % mpi.world_size() != mpi.rank()) continue;
        const int64_t sample = session.split->training_sample(c, place - before);
        const at::Tensor mean = mean_latent(*session.dataset, sample, classes[c].shape, crop);
        const std::span training(mean.const_data_ptr<float>(), size);
        for (size_t i = 0; i < search.nearest.size(); ++i) {
          const std::span own(flat.const_data_ptr<float>() + i * size, size);
          note(search.nearest[i], root_mean_square(own, training), sample);
        }
        report.advance(1);
      }
      before = end;
    }
  });
  merge(mpi, search.nearest);
  return search;
}

void write_nearest(const LatentDataset& dataset, const std::vector<std::string>& prompts,
                   const NearestSearch& search, const std::filesystem::path& file) {
  std::string text;
  for (size_t i = 0; i < search.nearest.size(); ++i) {
    const NearestTraining& nearest = search.nearest[i];
    JsonLine line;
    line.add("prompt", prompts[i]).add("distance", nearest.distance);
    line.add("second_distance", nearest.second_distance).add("sample", nearest.sample);
    if (nearest.sample >= 0) {
      line.add("id", dataset.id(nearest.sample));
      if (dataset.text()) {
        line.add("caption", dataset.caption(dataset.caption_rows(nearest.sample).front()));
      }
    }
    text += line.text() + "\n";
  }
  std::filesystem::create_directories(file.parent_path());
  write_text_file_atomically(file, text);
}

EvalMetrics memorisation_metrics(const NearestSearch& search) {
  if (search.nearest.empty() || search.num_compared == 0) return {};
  double sum = 0.0;
  double least = std::numeric_limits<double>::infinity();
  double copies = 0.0;
  for (const auto& nearest : search.nearest) {
    sum += nearest.distance;
    least = std::min(least, nearest.distance);
    copies += nearest.is_memorised() ? 1.0 : 0.0;
  }
  const auto count = static_cast<double>(search.nearest.size());
  return {{"nearest_train_distance", sum / count},
          {"nearest_train_distance_min", least},
          {"memorised_fraction", copies / count}};
}
}  // namespace trireme
