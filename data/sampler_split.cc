#include "data/sampler_split.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "core/error.h"
#include "core/philox.h"

namespace trireme {
namespace {
int64_t count_samples(const std::vector<ShapeClass>& classes) {
  int64_t total = 0;
  for (const ShapeClass& shape_class : classes) total += shape_class.num_samples;
  return total;
}

// Where stratum j of v begins among n.
int64_t stratum_start(int64_t j, int64_t n, int64_t v) { return multiply_divide(j, n, v); }
}  // namespace

int64_t multiply_divide(int64_t a, int64_t b, int64_t divisor) {
  return static_cast<int64_t>(static_cast<__int128>(a) * b / divisor);
}

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

int64_t Split::num_training_before(size_t class_index, int64_t sample) const {
  const auto& ranges = classes_[class_index].ranges;
  int64_t in_class = 0;  // Samples of the class below `sample`.
  for (const auto& range : ranges) {
    in_class += std::clamp<int64_t>(sample - range.first, 0, range.count);
  }
  const int64_t n = classes_[class_index].num_samples;
  const int64_t v = num_validation_[class_index];
  if (v == 0 || in_class == n) return in_class - v;
  // The stratum that `in_class` lies in: the last one that begins at or before it.
  int64_t stratum = std::min(multiply_divide(in_class, v, n), v - 1);
  while (stratum + 1 < v && stratum_start(stratum + 1, n, v) <= in_class) ++stratum;
  return in_class - stratum - (validation_in_class(class_index, stratum) < in_class ? 1 : 0);
}
}  // namespace trireme
