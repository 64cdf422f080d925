#include "data/sampler.h"

#include <algorithm>
#include <cmath>
#include <ostream>
#include <utility>

#include "core/error.h"
#include "core/philox.h"
#include "data/permutation.h"

namespace trireme {
namespace {
// Epochs from here on belong to the validation's random numbers (interface of PositionRandom:
// 2^24).
constexpr int64_t kMaxEpochs = 0xf00000;

int64_t multiply_divide(int64_t a, int64_t b, int64_t divisor) {
  return static_cast<int64_t>(static_cast<__int128>(a) * b / divisor);
}

int64_t count_samples(const std::vector<ShapeClass>& classes) {
  int64_t total = 0;
  for (const ShapeClass& shape_class : classes) total += shape_class.num_samples;
  return total;
}

// Where stratum j of v begins among n.
int64_t stratum_start(int64_t j, int64_t n, int64_t v) { return multiply_divide(j, n, v); }
}  // namespace

Split::Split(const std::vector<ShapeClass>& classes)
    : classes_(classes), num_validation_(classes.size(), 0) {
  index_ranges();
}

Split::Split(const std::vector<ShapeClass>& classes, double validation_fraction, uint64_t seed)
    : classes_(classes), seed_(seed) {
  check(validation_fraction >= 0.0 && validation_fraction < 1.0, "a fraction outside [0, 1)");
  index_ranges();
  const int64_t total = count_samples(classes);
  const auto validating =
      static_cast<int64_t>(std::ceil(validation_fraction * static_cast<double>(total)));
  if (total > 0 && validating >= total) {
    throw UsageError("data.validation_fraction = " + std::to_string(validation_fraction) + " of " +
                     std::to_string(total) +
                     " samples leaves none to train on. Lower it, or name " +
                     "validation files under data.validation.");
  }
  int64_t before = 0;
  int64_t given = 0;
  for (const ShapeClass& shape_class : classes) {
    before += shape_class.num_samples;
    // Rounded to nearest; the last running total is `validating` itself. A class's share is its
    // exact one rounded up or down, so never more than it has.
    const auto goal =
        static_cast<int64_t>((2 * static_cast<__int128>(before) * validating + total) /
                             (2 * static_cast<__int128>(total)));
    num_validation_.push_back(goal - given);
    given = goal;
  }
}

void Split::index_ranges() {
  for (const ShapeClass& shape_class : classes_) {
    auto& starts = range_starts_.emplace_back();
    int64_t start = 0;
    for (const auto& range : shape_class.ranges) {
      starts.push_back(start);
      start += range.count;
    }
    check(start == shape_class.num_samples, "a class whose ranges do not add up");
  }
}

int64_t Split::global_index(size_t class_index, int64_t in_class) const {
  const auto& starts = range_starts_[class_index];
  const auto range =
      static_cast<size_t>(std::prev(std::ranges::upper_bound(starts, in_class)) - starts.begin());
  return classes_[class_index].ranges[range].first + (in_class - starts[range]);
}

int64_t Split::num_training(size_t class_index) const {
  return classes_.at(class_index).num_samples - num_validation_.at(class_index);
}

int64_t Split::num_validation(size_t class_index) const { return num_validation_.at(class_index); }

int64_t Split::num_validation() const {
  int64_t total = 0;
  for (const int64_t count : num_validation_) total += count;
  return total;
}

int64_t Split::validation_in_class(size_t class_index, int64_t stratum) const {
  const int64_t n = classes_[class_index].num_samples;
  const int64_t v = num_validation_[class_index];
  const int64_t start = stratum_start(stratum, n, v);
  const int64_t size = stratum_start(stratum + 1, n, v) - start;
  const auto words = PositionRandom(seed_, Stream::kValidationSplit, 0,
                                    static_cast<uint64_t>(global_index(class_index, start)))
                         .words();
  const uint64_t word = uint64_t{words[0]} << 32 | words[1];
  return start +
         static_cast<int64_t>(
             static_cast<unsigned __int128>(word) * static_cast<unsigned __int128>(size) >> 64);
}

int64_t Split::validation_sample(size_t class_index, int64_t k) const {
  check(k >= 0 && k < num_validation(class_index), "a validation sample that does not exist");
  return global_index(class_index, validation_in_class(class_index, k));
}

int64_t Split::training_sample(size_t class_index, int64_t k) const {
  check(k >= 0 && k < num_training(class_index), "a training sample that does not exist");
  const int64_t n = classes_[class_index].num_samples;
  const int64_t v = num_validation_[class_index];
  if (v == 0) return global_index(class_index, k);
  // The last stratum with at most k training samples before it: start(j) - j does not decrease, and
  // a stratum of one sample, which has none to train, is passed over.
  int64_t low = 0;
  int64_t high = v - 1;
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (stratum_start(middle, n, v) - middle <= k) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  // Of the samples before the one wanted, k train and one in each earlier stratum validates.
  const int64_t candidate = k + low;
  return global_index(class_index,
                      candidate + (candidate >= validation_in_class(class_index, low) ? 1 : 0));
}

GlobalBatchSampler::GlobalBatchSampler(std::vector<ShapeClass> classes, Split split,
                                       Options options)
    : classes_(std::move(classes)), split_(std::move(split)), options_(options) {
  check(options_.global_batch >= 1, "a global batch without samples");
  for (size_t c = 0; c < classes_.size(); ++c) num_training_ += split_.num_training(c);
  if (num_training_ == 0) {
    throw UsageError(
        "no sample is left to train on. Check data.train and data.validation_fraction.");
  }
}

GlobalBatchSampler::BatchPlace GlobalBatchSampler::place(int64_t step) const {
  check(step >= 1, "steps count from 1");
  // Batch k of class c is due at (k + 1) B / N_c. All batches due by time (step - 1) B / N are the
  // first ones in order, at most step - 1 and more than step - 1 - classes of them; the rest of the
  // way is a merge.
  struct Next {
    size_t class_index;
    int64_t batch;
    int64_t num_samples;
  };
  const auto is_later = [](const Next& a, const Next& b) {
    const __int128 due_a = static_cast<__int128>(a.batch + 1) * b.num_samples;
    const __int128 due_b = static_cast<__int128>(b.batch + 1) * a.num_samples;
    return due_a != due_b ? due_a > due_b : a.class_index > b.class_index;
  };
  std::vector<Next> heap;
  int64_t taken = 0;
  for (size_t c = 0; c < classes_.size(); ++c) {
    const int64_t num_samples = split_.num_training(c);
    if (num_samples == 0) continue;
    const int64_t batch = multiply_divide(step - 1, num_samples, num_training_);
    heap.push_back({c, batch, num_samples});
    taken += batch;
  }
  std::ranges::make_heap(heap, is_later);
  for (; taken < step - 1; ++taken) {
    std::ranges::pop_heap(heap, is_later);
    ++heap.back().batch;
    std::ranges::push_heap(heap, is_later);
  }
  return {heap.front().class_index, heap.front().batch};
}

std::vector<SampleDraw> GlobalBatchSampler::draws(int64_t step, int64_t first,
                                                  int64_t count) const {
  check(first >= 0 && count >= 0 && first + count <= options_.global_batch,
        "positions outside the global batch");
  const BatchPlace at = place(step);
  const int64_t num_samples = split_.num_training(at.class_index);
  const __int128 begin = static_cast<__int128>(at.batch_in_class) * options_.global_batch + first;
  if ((begin + count) / num_samples >= kMaxEpochs) {
    throw UsageError("step " + std::to_string(step) + " would draw a sample more than " +
                     std::to_string(kMaxEpochs) +
                     " times, beyond the range of the random numbers. " +
                     "Lower run.steps or batch.global, or give more data.");
  }
  std::vector<SampleDraw> result;
  result.reserve(static_cast<size_t>(count));
  auto epoch = static_cast<int64_t>(begin / num_samples);
  auto index = static_cast<int64_t>(begin % num_samples);
  const auto stream = options_.first_class + static_cast<uint32_t>(at.class_index);
  Permutation permutation(num_samples, options_.seed, static_cast<uint64_t>(epoch), stream);
  while (static_cast<int64_t>(result.size()) < count) {
    const int64_t k = options_.order == Options::Order::kShuffled ? permutation(index) : index;
    result.push_back({.sample = split_.training_sample(at.class_index, k), .epoch = epoch});
    if (++index < num_samples) continue;
    index = 0;
    permutation = Permutation(num_samples, options_.seed, static_cast<uint64_t>(++epoch), stream);
  }
  return result;
}

const LatentShape& GlobalBatchSampler::shape(int64_t step) const {
  return classes_[place(step).class_index].shape;
}

int64_t GlobalBatchSampler::num_training() const noexcept { return num_training_; }

void write_order(std::ostream& out, const GlobalBatchSampler& sampler, int64_t first_step,
                 int64_t last_step, int64_t global_batch, int64_t num_shards) {
  constexpr int64_t kAtOnce = 1 << 16;
  for (int64_t step = first_step; step <= last_step; ++step) {
    for (int64_t first = 0; first < global_batch; first += kAtOnce) {
      int64_t position = first;
      for (const SampleDraw& draw :
           sampler.draws(step, first, std::min(kAtOnce, global_batch - first))) {
        out << step << '\t' << position << '\t'
            << multiply_divide(position, num_shards, global_batch) << '\t' << draw.epoch << '\t'
            << draw.sample << '\n';
        ++position;
      }
    }
  }
}
}  // namespace trireme
