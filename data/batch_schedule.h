#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace trireme {

// The global batch of every step: constant, or growing once given numbers of samples were consumed
// ([batch] in docs/config.md). A pure function of the step; a phase begins with the first step
// before which that many samples were consumed. A value type; O(log phases) a call.
class BatchSchedule {
 public:
  struct Growth {
    int64_t at_samples = 0;
    int64_t global_batch = 0;
  };
  // Steps first_step, first_step + 1, … up to the next phase's.
  struct Phase {
    int64_t first_step = 1;
    int64_t samples_before = 0;  // Consumed before it.
    int64_t global_batch = 1;
  };

  // Not explicit: a number is a constant schedule.
  BatchSchedule(int64_t global_batch) : BatchSchedule(global_batch, {}) {}
  // REQUIRES: global_batch >= 1; `growth` ascending in both members, beyond 0 and global_batch.
  BatchSchedule(int64_t global_batch, const std::vector<Growth>& growth);

  [[nodiscard]] int64_t global_batch(int64_t step) const { return phase(step).global_batch; }
  // Consumed by the steps 1 … step; 0 for step 0. Saturates at the largest integer.
  [[nodiscard]] int64_t samples_after(int64_t step) const;
  // The first step after which at least `samples` >= 1 were consumed.
  [[nodiscard]] int64_t step_that_consumes(int64_t samples) const;
  [[nodiscard]] const std::vector<Phase>& phases() const noexcept { return phases_; }
  // REQUIRES: step >= 1.
  [[nodiscard]] size_t phase_index(int64_t step) const;

 private:
  [[nodiscard]] const Phase& phase(int64_t step) const { return phases_[phase_index(step)]; }

  std::vector<Phase> phases_;  // Never empty.
};
}  // namespace trireme
