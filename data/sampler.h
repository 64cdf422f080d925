#pragma once
#include <cstdint>
#include <iosfwd>
#include <vector>

#include "data/dataset.h"
#include "data/latent_batch.h"

namespace trireme {

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

 private:
  [[nodiscard]] int64_t global_index(size_t class_index, int64_t in_class) const;
  [[nodiscard]] int64_t validation_in_class(size_t class_index, int64_t stratum) const;
  void index_ranges();

  std::vector<ShapeClass> classes_;
  std::vector<std::vector<int64_t>> range_starts_;  // Per class: where each range begins in it.
  std::vector<int64_t> num_validation_;
  uint64_t seed_ = 0;
};

// The order of training samples (docs/randomness.md, "Order"): a pure function of seed, dataset and
// global batch, never of ranks. Without a table of samples; random access by step.
class GlobalBatchSampler {
 public:
  struct Options {
    uint64_t seed = 0;
    int64_t global_batch = 1;
    enum class Order { kShuffled, kByIndex } order = Order::kShuffled;
    uint32_t first_class = 0;  // Number of the first class in the order's random numbers.
  };
  // The classes and split are copied. Throws UsageError where no sample trains.
  GlobalBatchSampler(std::vector<ShapeClass> classes, Split split, Options options);

  // Where a step's global batch comes from.
  struct BatchPlace {
    size_t class_index = 0;
    int64_t batch_in_class = 0;
  };
  // REQUIRES: step >= 1. Time O(classes x log(classes)) at any step.
  [[nodiscard]] BatchPlace place(int64_t step) const;
  // The draws at positions [first, first + count) of the step's global batch. Throws UsageError
  // where a sample would be drawn more often than the counter of its random numbers reaches.
  [[nodiscard]] std::vector<SampleDraw> draws(int64_t step, int64_t first, int64_t count) const;
  [[nodiscard]] const LatentShape& shape(int64_t step) const;
  [[nodiscard]] int64_t num_training() const noexcept;  // Samples of one epoch over all classes.

 private:
  std::vector<ShapeClass> classes_;
  Split split_;
  Options options_;
  int64_t num_training_ = 0;
};

// What `trireme inspect CONFIG --order A:B` prints: a line for each sample of the steps first_step
// to last_step, "step position shard epoch sample" separated by tabs, position by position.
// REQUIRES: num_shards divides global_batch, which is the sampler's.
void write_order(std::ostream& out, const GlobalBatchSampler& sampler, int64_t first_step,
                 int64_t last_step, int64_t global_batch, int64_t num_shards);
}  // namespace trireme
