#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "trainer/phase_clock.h"

namespace trireme {

// Where a run's time went, on every rank.
struct TimeReport {
  struct Rank {
    std::string host;
    std::array<double, kNumPhases> seconds = {};
  };
  std::vector<Rank> ranks;
  double wall_seconds = 0.0;  // Of the whole; what no phase counts is "other".
  int64_t num_steps = 0;      // Done in that time.
  int64_t global_batch = 0;
};

// One phase over all ranks; "other" comes last. share: of the wall time, by the mean.
struct PhaseSummary {
  std::string name;
  double min = 0.0;
  double mean = 0.0;
  double max = 0.0;
  double share = 0.0;
};
[[nodiscard]] std::vector<PhaseSummary> summarize(const TimeReport& report);

// At most three remarks worth acting on, each with its number and what to do; the costliest first.
// Empty where nothing stands out, or there were too few steps to tell (fewer than 10).
[[nodiscard]] std::vector<std::string> advise(const TimeReport& report);

// The table for a person: a line a phase with minimum, mean and maximum over ranks (one rank: one
// column).
[[nodiscard]] std::vector<std::string> time_table(const TimeReport& report);

// "4m12s", "1h05m", "2d03h".
[[nodiscard]] std::string duration_text(double seconds);
}  // namespace trireme
