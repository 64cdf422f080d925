#pragma once
#include <span>

#include <sys/types.h>

namespace trireme {

// Turns SIGUSR1, SIGTERM and the first SIGINT, each however often, into a request to stop after a
// checkpoint; a second SIGINT ends the process at once with code 130. Restores the default handlers
// on destruction, unless ignore_from_now_on() was called. One instance a process.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  // From now on a SIGTERM ends this process at once with code 4 where one of these processes is
  // gone: then it comes from mpirun, which ends the ranks that are left, and they wait for one that
  // will never answer. REQUIRES: processes of this host, visible from here; at most 256 are
  // watched.
  void watch_peers(std::span<const pid_t> peers) noexcept;

  // The outcome is settled: until this process ends, no SIGUSR1 or SIGTERM changes it any more.
  // mpirun and srun send SIGTERM to the ranks that are left once the first has ended with a code.
  void ignore_from_now_on() noexcept;

  [[nodiscard]] bool requested() const noexcept;
  // The signal's name, for messages; "" where none came.
  [[nodiscard]] const char* name() const noexcept;
};
}  // namespace trireme
