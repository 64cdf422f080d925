#include "data/training_samples.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "core/error.h"

namespace trireme {

TrainingSamples::TrainingSamples(const std::vector<ShapeClass>& classes, Split split,
                                 const std::vector<SampleRepeats>& repeats)
    : split_(std::move(split)) {
  for (const auto& repeat : repeats) max_times_ = std::max(max_times_, repeat.times);
  for (size_t c = 0; c < classes.size(); ++c) {
    auto& stretches = stretches_.emplace_back();
    int64_t num_draws = 0;
    int64_t training = 0;
    const auto add = [&](int64_t end, int64_t times) {  // Up to training sample `end`.
      if (end <= training) return;
      stretches.push_back({num_draws, training, end - training, times});
      num_draws += (end - training) * times;
      training = end;
    };
    for (const auto& [first, count, times] : repeats) {
      check(times >= 1, "samples that are drawn");
      add(split_.num_training_before(c, first), 1);
      add(split_.num_training_before(c, first + count), times);
    }
    add(split_.num_training(c), 1);
    class_draws_.push_back(num_draws);
    num_draws_ += num_draws;
  }
}

int64_t TrainingSamples::num_draws(size_t class_index) const {
  return class_draws_.at(class_index);
}

SampleDraw TrainingSamples::draw(size_t class_index, int64_t k, int64_t epoch) const {
  check(k >= 0 && k < num_draws(class_index), "a draw that does not exist");
  const auto& stretches = stretches_[class_index];
  const Stretch& stretch =
      *std::prev(std::ranges::upper_bound(stretches, k, {}, &Stretch::first_draw));
  const int64_t place = k - stretch.first_draw;
  return {
      .sample = split_.training_sample(class_index, stretch.first_training + place % stretch.count),
      .epoch = epoch * stretch.times + place / stretch.count};
}
}  // namespace trireme
