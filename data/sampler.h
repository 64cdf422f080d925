#pragma once
#include <cstdint>
#include <iosfwd>
#include <vector>

#include "data/batch_schedule.h"
#include "data/dataset.h"
#include "data/latent_batch.h"
#include "data/sampler_split.h"
#include "data/training_samples.h"

namespace trireme {

// The order of training samples (docs/randomness.md, "Order"): a pure function of seed, dataset and
// global batch, never of ranks. Without a table of samples; random access by step.
class GlobalBatchSampler {
 public:
  struct Options {
    uint64_t seed = 0;
    BatchSchedule global_batch = 1;
    enum class Order { kShuffled, kByIndex } order = Order::kShuffled;
    uint32_t first_class = 0;  // Number of the first class in the order's random numbers.
    std::vector<SampleRepeats> repeats = {};
  };
  // The classes and split are copied. Throws UsageError where no sample trains.
  GlobalBatchSampler(std::vector<ShapeClass> classes, Split split, Options options);

  // Where a step's global batch comes from: positions first, first + 1, … of a class's stream.
  struct BatchPlace {
    size_t class_index = 0;
    __int128 first = 0;
  };
  // REQUIRES: step >= 1. Time O(classes x log(classes)) at any step.
  [[nodiscard]] BatchPlace place(int64_t step) const;
  // The draws at positions [first, first + count) of the step's global batch. Throws UsageError
  // where a sample would be drawn more often than the counter of its random numbers reaches.
  [[nodiscard]] std::vector<SampleDraw> draws(int64_t step, int64_t first, int64_t count) const;
  [[nodiscard]] const LatentShape& shape(int64_t step) const;
  [[nodiscard]] int64_t global_batch(int64_t step) const {
    return options_.global_batch.global_batch(step);
  }
  [[nodiscard]] int64_t num_training() const noexcept;  // Draws of one epoch over all classes.

 private:
  // A class's next batch in a phase of the batch schedule.
  struct Next {
    size_t class_index = 0;
    int64_t batch = 0;        // Batches of the phase before it.
    __int128 consumed = 0;    // Of the class's stream, before the phase.
    int64_t num_samples = 0;  // An epoch's.
  };
  // Where the classes stand when a phase begins.
  struct PhaseStart {
    std::vector<__int128> consumed;  // By class.
    int64_t ahead = 0;  // Batches by which classes are ahead of their due time, summed.
  };
  [[nodiscard]] std::vector<Next> heap_after(size_t phase, int64_t num_steps) const;
  [[nodiscard]] PhaseStart start_after(size_t phase, int64_t num_steps, int64_t next_batch) const;

  std::vector<ShapeClass> classes_;
  TrainingSamples samples_;
  Options options_;
  std::vector<PhaseStart> starts_;  // One a phase.
};

// What `trireme inspect CONFIG --order A:B` prints: a line for each sample of the steps first_step
// to last_step, "step position shard epoch sample" separated by tabs, position by position.
// REQUIRES: num_shards divides every global batch.
void write_order(std::ostream& out, const GlobalBatchSampler& sampler, int64_t first_step,
                 int64_t last_step, int64_t num_shards);
}  // namespace trireme
