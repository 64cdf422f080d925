#include "launcher/command_output.h"

#include <array>
#include <chrono>
#include <csignal>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

namespace trireme {
namespace {
using Clock = std::chrono::steady_clock;

// Reads until the end of the pipe or the deadline; whether it came to the end.
bool read_all(int descriptor, Clock::time_point deadline, std::string& text) {
  std::array<char, 4096> bytes;
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd source{.fd = descriptor, .events = POLLIN, .revents = 0};
    if (left <= 0 || poll(&source, 1, static_cast<int>(left)) == 0) return false;
    const ssize_t count = read(descriptor, bytes.data(), bytes.size());
    if (count == 0) return true;
    if (count > 0) text.append(bytes.data(), static_cast<size_t>(count));
  }
}

int spawn(const std::vector<std::string>& command, int output, pid_t& child) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  std::vector<char*> argv;
  for (const auto& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const int error = posix_spawnp(&child, argv[0], &actions, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}
}  // namespace

CommandOutput output_of(const std::vector<std::string>& command, int limit_seconds) {
  int ends[2] = {-1, -1};
  CommandOutput result;
  if (pipe2(ends, O_CLOEXEC) != 0) return result;
  pid_t child = -1;
  const int error = spawn(command, ends[1], child);
  close(ends[1]);
  if (error == 0) {
    const auto deadline = Clock::now() + std::chrono::seconds(limit_seconds);
    const bool ended = read_all(ends[0], deadline, result.text);
    if (!ended) kill(-child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    constexpr int kTimedOut = 124;
    constexpr int kSignalBase = 128;
    result.exit_code = !ended              ? kTimedOut
                       : WIFEXITED(status) ? WEXITSTATUS(status)
                                           : kSignalBase + WTERMSIG(status);
  }
  close(ends[0]);
  return result;
}
}  // namespace trireme
