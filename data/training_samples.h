#pragma once
#include <cstdint>
#include <vector>

#include "data/sampler_split.h"

namespace trireme {

// Samples [first, first + count), each drawn `times` times an epoch.
struct SampleRepeats {
  int64_t first = 0;
  int64_t count = 0;
  int64_t times = 1;
};

// What an epoch draws of each class: its training samples in index order, those of a repeated range
// as often as it says, one run of the range after the other. O(1) memory in the samples.
class TrainingSamples {
 public:
  // `repeats` ascending and disjoint; samples outside them are drawn once.
  TrainingSamples(const std::vector<ShapeClass>& classes, Split split,
                  const std::vector<SampleRepeats>& repeats = {});

  [[nodiscard]] int64_t num_draws(size_t class_index) const;  // An epoch's.
  [[nodiscard]] int64_t num_draws() const noexcept { return num_draws_; }
  // Draw k of a class in epoch `epoch`. Copy j of a sample that is repeated r times is draw
  // number epoch x r + j of that sample.
  [[nodiscard]] SampleDraw draw(size_t class_index, int64_t k, int64_t epoch) const;
  [[nodiscard]] int64_t max_times() const noexcept { return max_times_; }

 private:
  struct Stretch {
    int64_t first_draw = 0;
    int64_t first_training = 0;  // Of the class's training samples.
    int64_t count = 0;
    int64_t times = 1;
  };
  Split split_;
  std::vector<std::vector<Stretch>> stretches_;  // Per class, ascending.
  std::vector<int64_t> class_draws_;
  int64_t num_draws_ = 0;
  int64_t max_times_ = 1;
};
}  // namespace trireme
