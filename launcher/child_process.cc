#include "launcher/child_process.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/log.h"

namespace trireme {
namespace {
constexpr int kExecFailed = 127;

sigset_t watched_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGCHLD}) sigaddset(&set, number);
  return set;
}

// In the child. Reports what went wrong through `report`, which a successful exec closes.
[[noreturn]] void execute(const LaunchPlan& plan, const sigset_t& mask_before, pid_t parent,
                          int report) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(kExecFailed);
  const int nothing =
      open("/dev/null", O_RDONLY | O_CLOEXEC);  // Reading a terminal would stop the group.
  if (nothing >= 0) dup2(nothing, STDIN_FILENO);
  for (const auto& [name, value] : plan.environment) setenv(name.c_str(), value.c_str(), 1);
  std::vector<char*> argv;
  for (const auto& word : plan.command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  sigprocmask(SIG_SETMASK, &mask_before, nullptr);
  execvp(argv[0], argv.data());
  const int error = errno;
  static_cast<void>(!write(report, &error, sizeof error));
  _exit(kExecFailed);
}

pid_t start(const LaunchPlan& plan, const sigset_t& mask_before) {
  int report[2] = {-1, -1};
  if (pipe2(report, O_CLOEXEC) != 0)
    throw InternalError(std::string("pipe2: ") + std::strerror(errno));
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child == 0) execute(plan, mask_before, parent, report[1]);
  const int fork_error = errno;
  close(report[1]);
  int error = 0;
  const bool failed = child < 0 || read(report[0], &error, sizeof error) == sizeof error;
  close(report[0]);
  if (!failed) return child;
  if (child > 0) waitpid(child, nullptr, 0);
  throw UsageError("Cannot start " + plan.command.front() + ": " +
                   std::strerror(child < 0 ? fork_error : error) +
                   ". Install Open MPI (Debian: openmpi-bin) or load its module, and see that " +
                   plan.command.front() + " is in PATH.");
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

ChildOutcome run_child(const LaunchPlan& plan) {
  const sigset_t watched = watched_signals();
  sigset_t before;
  sigprocmask(SIG_BLOCK, &watched, &before);
  ChildOutcome outcome;
  try {
    const pid_t child = start(plan, before);
    for (;;) {
      siginfo_t info{};
      const int received = sigwaitinfo(&watched, &info);
      if (received < 0) continue;  // EINTR: a debugger, say.
      if (received != SIGCHLD) {
        forward(child, received, outcome);
        continue;
      }
      int status = 0;
      if (waitpid(child, &status, WNOHANG) != child) continue;
      outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
      outcome.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
      break;
    }
  } catch (...) {
    sigprocmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  sigprocmask(SIG_SETMASK, &before, nullptr);
  return outcome;
}

LaunchResult interpret(const ChildOutcome& outcome, std::string_view starter) {
  if (outcome.was_interrupted) {
    return {.code = ExitCode::kInterrupted,
            .message = "Interrupted; the newest checkpoint is the one to go on from."};
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
