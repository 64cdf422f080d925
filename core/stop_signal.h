#pragma once

namespace trireme {

// Turns SIGUSR1, SIGTERM and the first SIGINT into a request to stop after a checkpoint; a second
// SIGINT ends the process at once with code 130. Restores the former handlers on destruction. One
// instance a process.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  [[nodiscard]] bool requested() const noexcept;
  // The signal's name, for messages; "" where none came.
  [[nodiscard]] const char* name() const noexcept;
};
}  // namespace trireme
