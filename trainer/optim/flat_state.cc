#include "trainer/optim/flat_state.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "trainer/torch_api.h"

namespace trireme::internal {
namespace {
// The part of a segment that a range holds, in elements from the bucket's start.
FlatRange overlap(const FlatSegment& segment, const FlatRange& range) {
  const int64_t first = std::max(segment.offset, range.first);
  const int64_t last = std::min(segment.offset + segment.num_elements, range.last);
  return {first, std::max(first, last)};
}

bool is_whole(const FlatSegment& segment, const FlatRange& held) {
  return held.last - held.first == segment.num_elements;
}

std::string key_of(const std::string& slot, const FlatSegment& segment) {
  return slot.empty() ? segment.name : slot + "/" + segment.name;
}

std::string describe_shape(at::IntArrayRef shape) {
  std::string text = "(";
  for (const int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + ")";
}
}  // namespace

void require_whole_tensors(const std::vector<FlatBucket>& buckets,
                           const std::vector<FlatRange>& ranges, const std::string& optimizer) {
  for (size_t b = 0; b < buckets.size(); ++b) {
    for (const auto& segment : buckets[b].segments) {
      const FlatRange held = overlap(segment, ranges[b]);
      if (held.first == held.last || is_whole(segment, held)) continue;
      throw UsageError("optim.name = \"" + optimizer +
                       "\" needs norms of whole tensors, but parallel.shard_optimizer splits '" +
                       segment.name +
                       "' between ranks. Set parallel.shard_optimizer = false, or choose adamw, "
                       "adam, sgd or lion.");
    }
  }
}

void change_if_finite(const at::Tensor& grad_scale, const std::vector<at::Tensor>& tensors,
                      const std::function<void()>& change) {
  if (grad_scale.is_cpu()) {
    if (std::isfinite(*grad_scale.const_data_ptr<float>())) change();
    return;
  }
  std::vector<at::Tensor> before;
  for (const auto& tensor : tensors) before.push_back(tensor.clone());
  change();
  const at::Tensor is_finite = grad_scale.isfinite();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor& tensor = tensors[i];
    tensor.copy_(torch::where(is_finite, tensor, before[i]));
  }
}

at::Tensor read_state(const SafetensorsReader& reader, const std::string& name,
                      const std::vector<int64_t>& shape) {
  const std::string file = reader.files().front().string();
  if (!reader.contains(name)) {
    throw InputError(file + ": the optimizer state '" + name +
                     "' is missing. It was written with another optimizer or other trained "
                     "tensors; start over with --fresh, or restore the configuration it belongs "
                     "to.");
  }
  const at::Tensor stored = reader.read(name);
  if (stored.sizes() != at::IntArrayRef(shape)) {
    throw InputError(file + ": the optimizer state '" + name + "' has shape " +
                     describe_shape(stored.sizes()) + ", but the model's tensor needs " +
                     describe_shape(shape) + ". It belongs to another model.");
  }
  return stored.to(torch::kFloat).contiguous();
}

FlatState::FlatState(const std::vector<FlatBucket>& buckets, const std::vector<FlatRange>& ranges,
                     std::vector<std::string> slots)
    : buckets_(buckets), ranges_(ranges), slots_(std::move(slots)), values_(slots_.size()) {
  for (auto& values : values_) {
    for (size_t b = 0; b < buckets_.size(); ++b) {
      values.push_back(
          torch::zeros({ranges_[b].last - ranges_[b].first}, buckets_[b].params.options()));
    }
  }
}

at::Tensor FlatState::segment(size_t slot, size_t bucket, const FlatSegment& segment) const {
  return segment_view(values_[slot][bucket], segment.offset - ranges_[bucket].first, segment);
}

NamedTensors FlatState::tensors() const {
  const torch::NoGradGuard no_grad;
  NamedTensors named;
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    for (size_t b = 0; b < buckets_.size(); ++b) {
      for (const auto& part : buckets_[b].segments) {
        const FlatRange held = overlap(part, ranges_[b]);
        at::Tensor whole;
        if (is_whole(part, held)) {
          whole = segment(slot, b, part);
        } else {
          const int64_t count = held.last - held.first;
          whole = torch::zeros({part.num_elements}, values_[slot][b].options());
          if (count > 0) {
            whole.narrow(0, held.first - part.offset, count)
                .copy_(values_[slot][b].narrow(0, held.first - ranges_[b].first, count));
          }
          whole = segment_view(whole, 0, part);
        }
        named.emplace_back(key_of(slots_[slot], part), whole);
      }
    }
  }
  return named;
}

void FlatState::load(const SafetensorsReader& reader) {
  const torch::NoGradGuard no_grad;
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    for (size_t b = 0; b < buckets_.size(); ++b) {
      for (const auto& part : buckets_[b].segments) {
        const at::Tensor stored = read_state(reader, key_of(slots_[slot], part), part.shape);
        const FlatRange held = overlap(part, ranges_[b]);
        const int64_t count = held.last - held.first;
        if (count == 0) continue;
        values_[slot][b]
            .narrow(0, held.first - ranges_[b].first, count)
            .copy_(in_memory_order(stored, part).narrow(0, held.first - part.offset, count));
      }
    }
  }
}
}  // namespace trireme::internal
