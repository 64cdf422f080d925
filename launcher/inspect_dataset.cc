#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/dataset.h"
#include "data/file_attributes.h"
#include "launcher/inspect.h"

namespace trireme {
namespace {

constexpr int64_t kNumExamples = 3;
constexpr size_t kNumFailuresNamed = 10;

std::string format_shape(const LatentShape& shape) {
  return std::to_string(shape.channels) + " x " + std::to_string(shape.height) + " x " +
         std::to_string(shape.width);
}

void report_samples(const LatentDataset& dataset, ReportTable& table) {
  table.row("samples", format_count(dataset.num_samples()));
  for (const ShapeClass& shape_class : dataset.classes()) {
    const int64_t first = shape_class.ranges.front().first;
    table.row("latents " + format_shape(shape_class.shape),
              format_plural(shape_class.num_samples, "sample") +
                  (dataset.is_moments(first) ? ", posterior moments" : ", samples") + ", from " +
                  dataset.describe(first));
  }
  if (dataset.has_labels()) table.row("labels", "yes");
  if (dataset.has_add_time_ids()) table.row("add_time_ids", "yes");
}

void report_text(const LatentDataset& dataset, ReportTable& table) {
  const auto text = dataset.text();
  if (!text) {
    table.row("text", "none");
    return;
  }
  table.row("captions", format_count(text->num_captions) + " distinct, at most " +
                            std::to_string(dataset.max_captions()) + " a sample");
  table.row("prompt_embeds",
            std::to_string(text->length) + " x " + std::to_string(text->width) +
                (text->pooled_width > 0 ? ", pooled " + std::to_string(text->pooled_width) : ""));
}

void report_examples(const LatentDataset& dataset, ReportTable& table) {
  for (int64_t sample = 0; sample < std::min(kNumExamples, dataset.num_samples()); ++sample) {
    std::string captions;
    if (dataset.text()) {
      for (const int64_t row : dataset.caption_rows(sample)) {
        captions += (captions.empty() ? "\"" : ", \"") + one_line(dataset.caption(row), 60) + "\"";
      }
    }
    const std::string id = dataset.id(sample);
    if (id.empty() && captions.empty()) continue;
    table.row("sample " + std::to_string(sample), one_line(id, 60) + "  " + captions);
  }
}

// Counts what is wrong and keeps the first messages.
class Failures {
 public:
  template <typename Check>
  void expect(Check check) {
    try {
      check();
    } catch (const InputError& error) {
      ++count_;
      if (messages_.size() < kNumFailuresNamed) messages_.emplace_back(error.what());
    }
  }
  void report(ReportTable& table) const {
    for (const auto& message : messages_) table.note("WRONG: " + message);
  }
  void raise(const std::filesystem::path& file) const {
    if (count_ == 0) return;
    throw InputError("the dataset " + file.string() + " is damaged: " +
                     format_plural(count_, "check") + " failed, the first: " + messages_.front());
  }

 private:
  int64_t count_ = 0;
  std::vector<std::string> messages_;
};

void require_finite(std::span<const float> values, const std::string& where) {
  const auto bad = std::ranges::find_if_not(values, [](float v) { return std::isfinite(v); });
  if (bad == values.end()) return;
  throw InputError(where + " holds a value that is not finite, at element " +
                   std::to_string(bad - values.begin()) + ". Make the file again.");
}

void verify_samples(const LatentDataset& dataset, Failures& failures) {
  std::vector<float> latent;
  std::vector<float> time_ids(6);
  std::vector<float> normals;  // Zeros: the posterior's mean.
  for (const ShapeClass& shape_class : dataset.classes()) {
    const auto num_elements = static_cast<size_t>(shape_class.shape.num_elements());
    latent.resize(num_elements);
    normals.assign(num_elements, 0.0F);
    for (const auto& range : shape_class.ranges) {
      for (int64_t sample = range.first; sample < range.first + range.count; ++sample) {
        failures.expect([&] {
          const bool moments = dataset.is_moments(sample);
          dataset.read_latent(sample, moments ? normals : std::span<const float>(), latent);
          require_finite(latent, dataset.describe(sample));
          if (dataset.text()) (void)dataset.caption_rows(sample);
          if (dataset.has_add_time_ids()) {
            dataset.read_add_time_ids(sample, time_ids);
            require_finite(time_ids, "add_time_ids of " + dataset.describe(sample));
          }
        });
      }
    }
  }
}

void verify_text(const LatentDataset& dataset, const std::string& file, Failures& failures) {
  const auto text = dataset.text();
  if (!text) return;
  std::vector<float> embeds(static_cast<size_t>(text->length * text->width));
  std::vector<float> pooled(static_cast<size_t>(text->pooled_width));
  for (int64_t row = 0; row < text->num_captions; ++row) {
    failures.expect([&] {
      dataset.read_prompt_embeds(row, embeds);
      require_finite(embeds, file + ", /text/prompt_embeds, row " + std::to_string(row));
      if (!pooled.empty()) {
        dataset.read_pooled_prompt_embeds(row, pooled);
        require_finite(pooled, file + ", /text/pooled_prompt_embeds, row " + std::to_string(row));
      }
      (void)dataset.caption(row);
    });
  }
}
}  // namespace

void inspect_dataset(const std::filesystem::path& file, InspectDepth depth, ReportTable& table) {
  const auto dataset = LatentDataset::open({file});
  table.heading("dataset " + file.string());
  table.row("size", format_bytes(std::filesystem::file_size(file)));
  report_samples(*dataset, table);
  report_text(*dataset, table);
  report_examples(*dataset, table);
  for (const auto& [name, value] : read_file_attributes(file)) {
    table.row("attribute " + name, one_line(value));
  }
  if (depth == InspectDepth::kHeaders) return;
  Failures failures;
  verify_samples(*dataset, failures);
  verify_text(*dataset, file.string(), failures);
  failures.report(table);
  failures.raise(file);
  table.row("verified",
            "every sample and caption was read; all values are finite, and checksums "
            "agree where there are any");
}
}  // namespace trireme
