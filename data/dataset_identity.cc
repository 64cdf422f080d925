#include "data/dataset_identity.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/formatted.h"
#include "data/xxh3.h"

namespace trireme {
namespace {
constexpr int64_t kSamplesRead = 64;

// Of what the data says of a batch; noise and timesteps follow from the configuration.
std::string checksum_of(const LatentBatch& batch) {
  std::vector<std::byte> content;
  const auto add = [&](const auto& values) {
    const auto bytes = std::as_bytes(std::span(values));
    content.insert(content.end(), bytes.begin(), bytes.end());
  };
  add(batch.latents);
  add(batch.prompt_embeds);
  add(batch.pooled_prompt_embeds);
  add(batch.add_time_ids);
  add(batch.labels);
  return "checksum " + checksum_text(XXH3_64bits(content.data(), content.size()));
}

std::string describe(const LatentFileSummary::Bucket& bucket) {
  std::string text = std::to_string(bucket.num_samples) + " latents (" + bucket.kind + ", " +
                     bucket.type + ") of shape (" + std::to_string(bucket.shape.channels) + ", " +
                     std::to_string(bucket.shape.height) + ", " +
                     std::to_string(bucket.shape.width) + ")";
  for (const auto& companion : bucket.companions) text += ", " + companion;
  if (bucket.checksum) text += "; checksum " + checksum_text(*bucket.checksum);
  return text;
}

std::string describe(const LatentFileSummary& file) {
  const std::string name = "\"" + file.path.string() + "\"";
  std::string lines;
  for (const auto& [key, value] : file.attributes) {
    if (key == "scaling_factor" || key == "shift_factor") {
      lines += name + ": " + key + " = " + value + "\n";
    }
  }
  const StoredText& text = file.text;
  lines += name + ": " + std::to_string(text.num_captions) + " prompts of shape (" +
           std::to_string(text.length) + ", " + std::to_string(text.width) + "), pooled width " +
           std::to_string(text.pooled_width) + "\n";
  for (const auto& bucket : file.buckets) {
    lines += name + ", bucket " + bucket.path + ": " + describe(bucket) + "\n";
  }
  return lines;
}
}  // namespace

std::string identity_of(const LatentDataset& dataset, const DrawOptions& draw) {
  std::string lines;
  for (const auto& file : dataset.summaries()) lines += describe(file);
  DrawOptions whole = draw;
  whole.crop = 0;
  const int64_t last = dataset.num_samples() - 1;
  const int64_t count = std::min(kSamplesRead, last + 1);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t sample = count == 1 ? 0 : i * last / (count - 1);
    const LatentBatch batch = make_evaluation_batch(dataset, whole, {sample}, 0, 1);
    lines += dataset.describe(sample) + ": " + checksum_of(batch) + "\n";
  }
  return lines;
}
}  // namespace trireme
