#include "core/stop_signal.h"

#include <csignal>

#include <unistd.h>

#include "core/error.h"

namespace trireme {
namespace {
// A signal handler can reach nothing but statics.
volatile std::sig_atomic_t received_signal = 0;

void on_signal(int number) {
  if (number == SIGINT && received_signal == SIGINT) {
    _exit(static_cast<int>(ExitCode::kInterrupted));
  }
  received_signal = number;
}

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGUSR1};
}  // namespace

StopSignal::StopSignal() {
  received_signal = 0;
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  for (const int number : kSignals) sigaction(number, &action, nullptr);
}

StopSignal::~StopSignal() {
  for (const int number : kSignals) std::signal(number, SIG_DFL);
}

bool StopSignal::requested() const noexcept { return received_signal != 0; }

const char* StopSignal::name() const noexcept {
  switch (received_signal) {
    case SIGINT:
      return "Ctrl-C";
    case SIGTERM:
      return "SIGTERM";
    case SIGUSR1:
      return "SIGUSR1";
    default:
      return "";
  }
}
}  // namespace trireme
