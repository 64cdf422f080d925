#include "launcher/child_process.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/handle.h"
#include "core/log.h"

namespace trireme {
namespace {
constexpr int kExecFailed = 127;
constexpr std::chrono::seconds kKillAfterInterrupt{2};
constexpr int kPollMs = 500;

struct DescriptorDeleter {
  static int null() { return -1; }
  static void destroy(int descriptor) noexcept { close(descriptor); }
};
using Descriptor = UniqueHandle<int, DescriptorDeleter>;

struct Pipe {
  Descriptor reading{-1};
  Descriptor writing{-1};
};

Pipe make_pipe() {
  int ends[2] = {-1, -1};
  if (pipe2(ends, O_CLOEXEC) != 0)
    throw InternalError(std::string("pipe2: ") + std::strerror(errno));
  return {.reading = Descriptor(ends[0]), .writing = Descriptor(ends[1])};
}

sigset_t watched_signals() {
  sigset_t watched;
  sigemptyset(&watched);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGCHLD}) sigaddset(&watched, number);
  return watched;
}

// The next held signal; empty where none waits.
std::optional<int> next_signal(const Descriptor& signals) {
  signalfd_siginfo info{};
  if (read(signals.get(), &info, sizeof info) != sizeof info) return std::nullopt;
  return static_cast<int>(info.ssi_signo);
}

std::vector<char*> pointers(const std::vector<std::string>& words) {
  std::vector<char*> result;
  for (const auto& word : words) result.push_back(const_cast<char*>(word.c_str()));
  result.push_back(nullptr);
  return result;
}

std::vector<std::string> whole_environment(const LaunchPlan& plan) {
  std::vector<std::string> entries;
  for (const auto& entry : plan.environment) {
    const std::string name = entry.substr(0, entry.find('='));
    bool is_replaced = false;
    for (const auto& setting : plan.settings) is_replaced = is_replaced || setting.first == name;
    if (!is_replaced) entries.push_back(entry);
  }
  for (const auto& [name, value] : plan.settings) entries.push_back(name + "=" + value);
  return entries;
}

// What the child needs, made before the fork: memory is not allocated after it.
struct Execution {
  std::vector<char*> argv;
  std::vector<char*> environment;
  pid_t parent = 0;
  int out = -1;
  int error = -1;
  int report = -1;  // Tells what went wrong; a successful exec closes it.
};

[[noreturn]] void execute(const Execution& what) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGUSR1);
  if (getppid() != what.parent) _exit(kExecFailed);
  const int nothing =
      open("/dev/null", O_RDONLY | O_CLOEXEC);  // Reading a terminal would stop the group.
  if (nothing >= 0) dup2(nothing, STDIN_FILENO);
  dup2(what.out, STDOUT_FILENO);
  dup2(what.error, STDERR_FILENO);
  sigset_t watched = watched_signals();
  sigdelset(&watched, SIGTERM);  // Stays blocked in the starter; mpirun unblocks it in the ranks.
  sigprocmask(SIG_UNBLOCK, &watched, nullptr);
  signal(SIGPIPE, SIG_DFL);
  execvpe(what.argv[0], what.argv.data(), what.environment.data());
  const int error = errno;
  static_cast<void>(!write(what.report, &error, sizeof error));
  _exit(kExecFailed);
}

struct Child {
  pid_t pid = -1;
  Descriptor out{-1};
  Descriptor error{-1};
};

Child start(const LaunchPlan& plan) {
  Pipe out = make_pipe();
  Pipe error = make_pipe();
  Pipe report = make_pipe();
  const std::vector<std::string> environment = whole_environment(plan);
  const Execution what{.argv = pointers(plan.command),
                       .environment = pointers(environment),
                       .parent = getpid(),
                       .out = out.writing.get(),
                       .error = error.writing.get(),
                       .report = report.writing.get()};
  const pid_t child = fork();
  if (child == 0) execute(what);
  const int fork_error = errno;
  for (Pipe* pipe : {&out, &error, &report}) pipe->writing.reset();
  int exec_error = 0;
  const bool failed =
      child < 0 || read(report.reading.get(), &exec_error, sizeof exec_error) == sizeof exec_error;
  if (failed) {
    if (child > 0) waitpid(child, nullptr, 0);
    throw UsageError("Cannot start " + plan.command.front() + ": " +
                     std::strerror(child < 0 ? fork_error : exec_error) +
                     ". Install Open MPI (Debian: openmpi-bin) or load its module, and see that " +
                     plan.command.front() + " is in PATH.");
  }
  return {.pid = child, .out = std::move(out.reading), .error = std::move(error.reading)};
}

// A SIGTERM at the starter itself: it waits there, and /proc shows it.
bool has_pending_term(pid_t child) {
  std::ifstream status("/proc/" + std::to_string(child) + "/status");
  constexpr std::string_view kShared = "ShdPnd:";
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with(kShared)) continue;
    const auto pending = std::strtoull(line.c_str() + kShared.size(), nullptr, 16);
    return (pending >> (SIGTERM - 1) & 1U) != 0;
  }
  return false;
}

void forward(pid_t child, int received, ChildOutcome& outcome) {
  if (!outcome.was_stopped || received == SIGUSR1) {
    if (!outcome.was_stopped && received != SIGUSR1) {
      log::info(
          "Stopping: the ranks finish their step and write a checkpoint (Ctrl-C again to stop at "
          "once).");
    }
    outcome.was_stopped = true;
    kill(child, SIGUSR1);
  } else if (received == SIGINT) {
    kill(child, outcome.was_interrupted ? SIGKILL : SIGINT);
    outcome.was_interrupted = true;
  }
}

// Whether more may come.
bool pass_on(Descriptor& source, OutputStream stream, RankOutput& output) {
  std::array<char, 1 << 16> bytes;
  const ssize_t count = read(source.get(), bytes.data(), bytes.size());
  if (count > 0) {
    output.consume(stream, std::string_view(bytes.data(), static_cast<size_t>(count)));
    return true;
  }
  if (count < 0 && (errno == EINTR || errno == EAGAIN)) return errno == EINTR;
  source.reset();
  return false;
}

// What is in the pipes when the child has ended; others that hold their ends are not waited for.
void drain(Child& child, RankOutput& output) {
  for (Descriptor* source : {&child.out, &child.error}) {
    if (source->get() < 0) continue;
    fcntl(source->get(), F_SETFL, O_NONBLOCK);
    while (pass_on(*source, source == &child.out ? OutputStream::kOut : OutputStream::kError,
                   output)) {
    }
  }
  output.finish();
}
// Codes that a rank does not have, and 1, may be the starter's own.
LaunchResult of_exit_code(int code, std::string_view starter) {
  const bool is_ranks = code != static_cast<int>(ExitCode::kOther) &&
                        (code <= static_cast<int>(ExitCode::kDiverged) ||
                         code == static_cast<int>(ExitCode::kStopped));
  if (is_ranks) return {.code = static_cast<ExitCode>(code), .message = {}};
  const std::string name(starter);
  return {
      .code = ExitCode::kOther,
      .message =
          name + " ended with code " + std::to_string(code) + ". If no rank said why, " + name +
          " could not start them: print its command line with --dry-run, run that without --quiet "
          "and see what it says."};
}
}  // namespace

SignalsHeld::SignalsHeld() {
  const sigset_t watched = watched_signals();
  sigprocmask(SIG_BLOCK, &watched, &before_);
  struct sigaction ignore = {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, &pipe_before_);
}

SignalsHeld::~SignalsHeld() {
  sigaction(SIGPIPE, &pipe_before_, nullptr);
  sigprocmask(SIG_SETMASK, &before_, nullptr);
}

ChildOutcome run_child(const LaunchPlan& plan, RankOutput& output,
                       std::chrono::seconds kill_timeout) {
  using Clock = std::chrono::steady_clock;
  const SignalsHeld held;
  const sigset_t watched = watched_signals();
  const Descriptor signals(signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
  check(signals.get() >= 0, "signalfd");
  Child child = start(plan);
  ChildOutcome outcome;
  std::optional<Clock::time_point> kill_at;
  for (;;) {
    std::array<pollfd, 3> sources{{{.fd = signals.get(), .events = POLLIN, .revents = 0},
                                   {.fd = child.out.get(), .events = POLLIN, .revents = 0},
                                   {.fd = child.error.get(), .events = POLLIN, .revents = 0}}};
    poll(sources.data(), sources.size(), kPollMs);
    if (!outcome.was_stopped && has_pending_term(child.pid)) forward(child.pid, SIGTERM, outcome);
    if (kill_at && Clock::now() > *kill_at) {
      outcome.was_killed = !outcome.was_interrupted;
      kill(child.pid, SIGKILL);  // Without it the ranks are gone in seconds.
    }
    if (sources[1].revents != 0) pass_on(child.out, OutputStream::kOut, output);
    if (sources[2].revents != 0) pass_on(child.error, OutputStream::kError, output);
    bool may_have_ended = false;
    while (const auto received = next_signal(signals)) {
      if (*received == SIGCHLD) {
        may_have_ended = true;
      } else {
        forward(child.pid, *received, outcome);
      }
    }
    if (outcome.was_interrupted) {
      kill_at =
          std::min(kill_at.value_or(Clock::time_point::max()), Clock::now() + kKillAfterInterrupt);
    } else if (outcome.was_stopped && !kill_at && kill_timeout.count() > 0) {
      kill_at = Clock::now() + kill_timeout;
    }
    int status = 0;
    if (!may_have_ended || waitpid(child.pid, &status, WNOHANG) != child.pid) continue;
    outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    outcome.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    drain(child, output);
    return outcome;
  }
}

LaunchResult interpret(const ChildOutcome& outcome, std::string_view starter) {
  if (outcome.was_interrupted) {
    return {.code = ExitCode::kInterrupted,
            .message = "Interrupted; the newest checkpoint is the one to go on from."};
  }
  if (outcome.was_killed) {
    return {.code = ExitCode::kLost,
            .message =
                "The ranks had not ended within --kill-timeout of the stop signal and were "
                "killed. Launch again: the run goes on from its newest checkpoint."};
  }
  constexpr int kSignalBase =
      128;  // Of a shell's, mpirun's and srun's codes for a process that a signal ended.
  const int number = outcome.signal != 0 ? outcome.signal : outcome.exit_code - kSignalBase;
  if (number <= 0) return of_exit_code(outcome.exit_code, starter);
  if (outcome.was_stopped && number == SIGUSR1) {
    return {.code = ExitCode::kStopped,
            .message = "Stopped before training had begun; run again to go on."};
  }
  if (outcome.signal == 0 && outcome.exit_code == static_cast<int>(ExitCode::kInterrupted)) {
    return {.code = ExitCode::kInterrupted, .message = {}};
  }
  const char* name = sigabbrev_np(number);
  const std::string what =
      name != nullptr ? std::string("SIG") + name : "signal " + std::to_string(number);
  return {
      .code = ExitCode::kLost,
      .message =
          (outcome.signal != 0 ? std::string(starter) : std::string("A rank")) + " was ended by " +
          what +
          (number == SIGKILL ? " (by hand, or by the kernel for want of memory: see dmesg)" : "") +
          ". Launch again: the run goes on from its newest checkpoint, at any number of ranks."};
}
}  // namespace trireme
