#pragma once
#include <cstdint>
#include <string>

namespace trireme {

// What the progress line shows of a run. Loss and rates are smoothed by the caller.
struct ProgressState {
  int64_t step = 0;
  int64_t num_steps = 0;
  double loss = 0.0;
  double lr = 0.0;
  double grad_norm = 0.0;
  double images_per_second = 0.0;
  double data_share = 0.0;  // Of the step's time, waiting for data.
  double comm_share = 0.0;  // Of the step's time, in communication that nothing hid.
  double seconds_left = 0.0;
};

// One line of at most `columns` characters (ASCII). What does not fit goes: first the bar, then
// the fields of least use. Step and loss stay, cut if need be.
[[nodiscard]] std::string progress_line(const ProgressState& state, int columns);

// "1,234,567". REQUIRES: count >= 0.
[[nodiscard]] std::string counted(int64_t count);
}  // namespace trireme
