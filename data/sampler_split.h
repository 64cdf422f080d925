#pragma once
#include <cstdint>
#include <vector>

#include "data/dataset.h"
#include "data/latent_batch.h"

namespace trireme {

// floor(a * b / divisor), of a product that need not fit. REQUIRES: none is negative, and the result
// fits.
[[nodiscard]] int64_t multiply_divide(int64_t a, int64_t b, int64_t divisor);

// Which samples take part in training and which in validation: strata of each class, one sample of
// each to validation, chosen by position (Stream::kValidationSplit). O(1) memory and time.
class Split {
 public:
  // Everything trains.
  explicit Split(const std::vector<ShapeClass>& classes);
  // ceil(fraction * N) samples validate, spread over the classes in proportion (by rounding the
  // running total). Throws UsageError where nothing is left to train on. REQUIRES: 0 <= fraction
  // < 1.
  Split(const std::vector<ShapeClass>& classes, double validation_fraction, uint64_t seed);

  [[nodiscard]] int64_t num_training(size_t class_index) const;
  [[nodiscard]] int64_t num_validation(size_t class_index) const;
  [[nodiscard]] int64_t num_validation() const;                                // Over all classes.
  [[nodiscard]] int64_t training_sample(size_t class_index, int64_t k) const;  // k-th, index order
  [[nodiscard]] int64_t validation_sample(size_t class_index,
                                          int64_t k) const;  // k-th, index order
  // How many training samples of the class have an index below `sample`.
  [[nodiscard]] int64_t num_training_before(size_t class_index, int64_t sample) const;

 private:
  [[nodiscard]] int64_t global_index(size_t class_index, int64_t in_class) const;
  [[nodiscard]] int64_t validation_in_class(size_t class_index, int64_t stratum) const;
  void index_ranges();

  std::vector<ShapeClass> classes_;
  std::vector<std::vector<int64_t>> range_starts_;  // Per class: where each range begins in it.
  std::vector<int64_t> num_validation_;
  uint64_t seed_ = 0;
};
}  // namespace trireme
