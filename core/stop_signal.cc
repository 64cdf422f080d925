#include "core/stop_signal.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>

#include <unistd.h>

#include "core/error.h"

namespace trireme {
namespace {
// A signal handler can reach nothing but statics.
volatile std::sig_atomic_t received_signal = 0;
std::array<pid_t, 256> peers;
volatile std::sig_atomic_t num_peers = 0;
bool is_outcome_settled = false;

// Calls nothing but what a signal handler may.
bool a_peer_is_gone() {
  const int error_before = errno;
  bool is_gone = false;
  for (std::sig_atomic_t i = 0; i < num_peers; ++i)
    is_gone = is_gone || (kill(peers[static_cast<size_t>(i)], 0) != 0 && errno == ESRCH);
  errno = error_before;
  return is_gone;
}

void on_signal(int number) {
  if (number == SIGINT && received_signal == SIGINT) {
    _exit(static_cast<int>(ExitCode::kInterrupted));
  }
  if (number == SIGTERM && a_peer_is_gone()) _exit(static_cast<int>(ExitCode::kLost));
  received_signal = number;
}

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGUSR1};
}  // namespace

StopSignal::StopSignal() : starter_(getppid()) {
  received_signal = 0;
  num_peers = 0;
  is_outcome_settled = false;
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  for (const int number : kSignals) sigaction(number, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

StopSignal::~StopSignal() {
  num_peers = 0;
  std::signal(SIGPIPE, SIG_DFL);
  if (is_outcome_settled) return;
  for (const int number : kSignals) std::signal(number, SIG_DFL);
}

void StopSignal::watch_peers(std::span<const pid_t> processes) noexcept {
  const size_t count = std::min(processes.size(), peers.size());
  num_peers = 0;
  std::copy_n(processes.begin(), count, peers.begin());
  num_peers = static_cast<std::sig_atomic_t>(count);
}

bool StopSignal::starter_is_gone() const noexcept {
  return watches_starter_ && getppid() != starter_;
}

bool StopSignal::requested() const noexcept { return received_signal != 0 || starter_is_gone(); }

const char* StopSignal::name() const noexcept {
  switch (received_signal) {
    case SIGINT:
      return "Ctrl-C";
    case SIGTERM:
      return "SIGTERM";
    case SIGUSR1:
      return "SIGUSR1";
    default:
      return starter_is_gone() ? "mpirun or srun has ended" : "";
  }
}

void ignore_late_signals() noexcept {
  is_outcome_settled = true;
  for (const int number : {SIGTERM, SIGUSR1}) std::signal(number, SIG_IGN);
}
}  // namespace trireme
