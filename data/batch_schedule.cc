#include "data/batch_schedule.h"

#include <algorithm>
#include <iterator>
#include <limits>

#include "core/error.h"

namespace trireme {

BatchSchedule::BatchSchedule(int64_t global_batch, const std::vector<Growth>& growth) {
  check(global_batch >= 1, "a global batch without samples");
  phases_.push_back({.first_step = 1, .samples_before = 0, .global_batch = global_batch});
  for (const Growth& next : growth) {
    const Phase& last = phases_.back();
    check(next.at_samples > 0 && next.global_batch > last.global_batch, "a batch that grows");
    // An earlier phase may have run past the point where this one is due.
    const int64_t missing = std::max<int64_t>(next.at_samples - last.samples_before, 0);
    const int64_t steps = (missing + last.global_batch - 1) / last.global_batch;
    const Phase phase{.first_step = last.first_step + steps,
                      .samples_before = last.samples_before + steps * last.global_batch,
                      .global_batch = next.global_batch};
    if (steps == 0) phases_.pop_back();
    phases_.push_back(phase);
  }
}

size_t BatchSchedule::phase_index(int64_t step) const {
  check(step >= 1, "steps count from 1");
  const auto after = std::ranges::upper_bound(phases_, step, {}, &Phase::first_step);
  return static_cast<size_t>(std::prev(after) - phases_.begin());
}

int64_t BatchSchedule::samples_after(int64_t step) const {
  if (step == 0) return 0;
  const Phase& at = phase(step);
  const __int128 samples =
      at.samples_before + static_cast<__int128>(step - at.first_step + 1) * at.global_batch;
  return static_cast<int64_t>(std::min<__int128>(samples, std::numeric_limits<int64_t>::max()));
}

int64_t BatchSchedule::step_that_consumes(int64_t samples) const {
  check(samples >= 1, "samples to consume");
  const auto after = std::ranges::lower_bound(phases_, samples, {}, &Phase::samples_before);
  const Phase& at = *std::prev(after);
  return at.first_step + (samples - at.samples_before - 1) / at.global_batch;
}
}  // namespace trireme
