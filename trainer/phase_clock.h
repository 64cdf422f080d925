#pragma once
#include <array>
#include <chrono>
#include <string>
#include <string_view>

#include "core/tracer.h"

namespace trireme {

// What a rank's main thread spends its time on. On a GPU, kernels run behind the host: their time
// appears where the host waits for them, in kWaiting, which includes reading a step's numbers.
enum class Phase {
  kData,           // Waiting for the loader.
  kWaiting,        // Waiting for other ranks, to agree on batches and losses.
  kForward,        // Forward passes, noising and loss.
  kBackward,       // Backward passes; communication that they hide is not counted.
  kCommunication,  // Waiting for gradients, or sharded parameters, of other ranks.
  kOptimizer,      // Gradient norm, update, EMA.
  kEvaluation,     // Validation, scores and samples.
  kCheckpoint,
};
inline constexpr size_t kNumPhases = 8;
inline constexpr std::array<std::string_view, kNumPhases> kPhaseNames = {
    "data",          "waiting for ranks", "forward",    "backward",
    "communication", "optimizer",         "evaluation", "checkpoint"};

// Seconds of each phase, and their spans for a trace. One thread's.
class PhaseClock {
 public:
  using Clock = std::chrono::steady_clock;
  // `trace` is the main thread's track.
  explicit PhaseClock(TraceTrack trace) : trace_(trace) {}

  // Counts from its construction to its end. Spans do not nest.
  class [[nodiscard]] Span {
   public:
    Span(PhaseClock& clock, Phase phase) : clock_(clock), phase_(phase) {}
    ~Span() { clock_.add(phase_, begin_, Clock::now()); }
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;

   private:
    PhaseClock& clock_;
    Phase phase_;
    Clock::time_point begin_ = Clock::now();
  };
  [[nodiscard]] Span measure(Phase phase) { return {*this, phase}; }

  // For a stretch whose phase is known only afterwards.
  void add(Phase phase, Clock::time_point begin, Clock::time_point end);

  [[nodiscard]] const std::array<double, kNumPhases>& seconds() const noexcept { return seconds_; }

 private:
  TraceTrack trace_;
  std::array<double, kNumPhases> seconds_ = {};
};
}  // namespace trireme
