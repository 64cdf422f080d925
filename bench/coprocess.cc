#include "bench/coprocess.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"

namespace trireme::bench {
namespace {
constexpr std::string_view kAnswer = "BENCH ";
constexpr int kGraceMs = 10'000;

std::array<int, 2> make_pipe() {
  std::array<int, 2> ends{};
  check(pipe2(ends.data(), O_CLOEXEC) == 0, "a pipe");
  return ends;
}

[[noreturn]] void become(const std::vector<std::string>& command, int input, int output) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  setpgid(0, 0);
  dup2(input, STDIN_FILENO);
  dup2(output, STDOUT_FILENO);
  std::vector<char*> arguments;
  for (const auto& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  execvp(arguments.front(), arguments.data());
  _exit(127);
}
}  // namespace

Coprocess::Coprocess(const std::vector<std::string>& command,
                     const std::vector<std::pair<std::string, std::string>>& environment)
    : name_(command.front()) {
  const auto down = make_pipe();
  const auto up = make_pipe();
  signal(SIGPIPE, SIG_IGN);  // A child that ended shows when it is heard.
  pid_ = fork();
  if (pid_ == 0) {
    for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
    become(command, down[0], up[1]);
  }
  close(down[0]);
  close(up[1]);
  to_child_ = down[1];
  from_child_ = up[0];
  if (pid_ < 0) throw UsageError("'" + name_ + "' cannot be started: " + std::strerror(errno));
}

Coprocess::~Coprocess() {
  close(to_child_);
  pollfd end{.fd = from_child_, .events = POLLIN, .revents = 0};
  std::array<char, 4096> rest{};
  while (poll(&end, 1, kGraceMs) > 0 && read(from_child_, rest.data(), rest.size()) > 0) {
  }
  close(from_child_);
  if (waitpid(pid_, nullptr, WNOHANG) == 0) {
    kill(-pid_, SIGTERM);
    waitpid(pid_, nullptr, 0);
  }
}

void Coprocess::tell(const std::string& line) {
  const std::string text = line + "\n";
  size_t sent = 0;
  while (sent < text.size()) {
    const ssize_t count = write(to_child_, text.data() + sent, text.size() - sent);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    sent += static_cast<size_t>(count);
  }
}

std::string Coprocess::hear(double timeout_seconds) {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + std::chrono::duration<double>(timeout_seconds);
  for (;;) {
    for (size_t end = 0; (end = buffer_.find('\n')) != std::string::npos;) {
      const std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      if (line.starts_with(kAnswer)) return line.substr(kAnswer.size());
    }
    const std::chrono::duration<double, std::milli> left = deadline - Clock::now();
    pollfd ready{.fd = from_child_, .events = POLLIN, .revents = 0};
    std::array<char, 4096> chunk{};
    const int state = left.count() > 0 ? poll(&ready, 1, static_cast<int>(left.count()) + 1) : 0;
    if (state < 0 && errno == EINTR) continue;
    const ssize_t count = state > 0 ? read(from_child_, chunk.data(), chunk.size()) : 0;
    if (count <= 0) {
      throw LostError("'" + name_ + "' " +
                      (state > 0 ? "ended before it answered" : "did not answer in time") +
                      "; its own messages are above.");
    }
    buffer_.append(chunk.data(), static_cast<size_t>(count));
  }
}
}  // namespace trireme::bench
