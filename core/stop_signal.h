#pragma once
#include <span>

#include <sys/types.h>

namespace trireme {

// Turns SIGUSR1, SIGTERM and the first SIGINT, each however often, into a request to stop after a
// checkpoint; a second SIGINT ends the process at once with code 130. A reader of this process's
// output that goes away (SIGPIPE) does not end it. Restores the default handlers on destruction.
// One instance a process.
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

  // From now on the end of the process that started this one is a request too: a second SIGTERM
  // within five seconds ends mpirun at once, and its ranks hear of neither.
  void watch_starter() noexcept { watches_starter_ = true; }

  [[nodiscard]] bool requested() const noexcept;
  // What asked for the stop, for messages; "" where nothing did.
  [[nodiscard]] const char* name() const noexcept;

 private:
  [[nodiscard]] bool starter_is_gone() const noexcept;
  pid_t starter_;
  bool watches_starter_ = false;
};

// The outcome is settled: until this process ends, no SIGUSR1 or SIGTERM changes it any more, and
// no StopSignal that ends gives them back their effect.
void ignore_late_signals() noexcept;
}  // namespace trireme
