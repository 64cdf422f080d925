#pragma once
#include <string>

#include "trainer/checkpoint/checkpoint.h"
#include "trainer/config.h"

namespace trireme {

// What becomes of a step whose loss or gradient norm is not finite, or stands out far above what it
// was ([divergence] in docs/config.md). Judges from reduced numbers only, so all ranks agree; its
// memory is in the checkpoint, so a resumed run judges as an uninterrupted one.
class DivergenceGuard {
 public:
  enum class Verdict { kUpdate, kSkip, kStop };

  // `state` outlives the guard, which keeps its memory in it.
  DivergenceGuard(const DivergenceOptions& options, CheckpointState& state)
      : options_(options), state_(state) {}

  // Whether updates are made to depend on the step before (divergence.policy, spike_factor).
  [[nodiscard]] bool may_skip() const noexcept {
    return options_.policy == DivergencePolicy::kSkip || knows_spikes();
  }
  [[nodiscard]] bool knows_spikes() const noexcept { return options_.spike_factor > 0; }
  [[nodiscard]] bool is_spike(double loss, double grad_norm) const;

  // Once a step, in order.
  [[nodiscard]] Verdict judge(double loss, double grad_norm);
  // Of the last verdict that was not kUpdate: "loss nan, gradient norm nan".
  [[nodiscard]] const std::string& reason() const noexcept { return reason_; }

 private:
  [[nodiscard]] bool stands_out(double value, double sum_of_average) const;

  DivergenceOptions options_;
  CheckpointState& state_;
  std::string reason_;
};
}  // namespace trireme
