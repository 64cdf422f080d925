#include "core/terminal.h"

#include <array>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace trireme {
namespace {
// mpirun hands each rank a pipe for stderr and copies it to its own. (Its stdout may be a terminal
// of mpirun's own making, which says nothing.) Another parent, say a shell, copies nothing.
bool parent_passes_stderr_on() {
  if (std::getenv("OMPI_COMM_WORLD_RANK") == nullptr && std::getenv("PMIX_RANK") == nullptr)
    return false;
  std::ifstream file("/proc/" + std::to_string(::getppid()) + "/comm");
  std::string name;
  std::getline(file, name);
  for (const std::string_view starter : {"mpirun", "mpiexec", "orterun", "prterun", "prte"}) {
    if (name == starter) return true;
  }
  return false;
}

// Field 4 of /proc/PID/stat, behind the name, which may hold anything.
std::string parent_of(const std::string& process) {
  std::ifstream file("/proc/" + process + "/stat");
  std::string text;
  std::getline(file, text);
  const size_t name_end = text.rfind(')');
  std::istringstream fields(name_end == std::string::npos ? "" : text.substr(name_end + 1));
  std::string state;
  std::string parent;
  fields >> state >> parent;
  return parent;
}

// A process's stderr where that is a terminal; else -1.
int open_terminal_of(const std::string& process) {
  const std::string path = "/proc/" + process + "/fd/2";
  // Resolved first: only a terminal may be opened, since opening a pipe would take part in it.
  std::array<char, 256> target = {};
  if (::readlink(path.c_str(), target.data(), target.size() - 1) <= 0) return -1;
  if (!std::string_view(target.data()).starts_with("/dev/")) return -1;
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_NOCTTY | O_CLOEXEC);
  if (descriptor >= 0 && ::isatty(descriptor) != 1) {
    ::close(descriptor);
    return -1;
  }
  return descriptor;
}

int open_terminal() {
  if (::isatty(STDERR_FILENO) == 1) return ::dup(STDERR_FILENO);
  if (!parent_passes_stderr_on()) return -1;
  const std::string starter = std::to_string(::getppid());
  const int descriptor = open_terminal_of(starter);
  // `trireme launch` passes on what mpirun passes on.
  return descriptor >= 0 || std::getenv("TRIREME_LAUNCH_ID") == nullptr
             ? descriptor
             : open_terminal_of(parent_of(starter));
}
}  // namespace

std::optional<Terminal> Terminal::of_stderr() {
  const char* kind = std::getenv("TERM");
  if (kind != nullptr && std::string_view(kind) == "dumb") return std::nullopt;
  const int descriptor = open_terminal();
  if (descriptor < 0) return std::nullopt;
  return Terminal(descriptor);
}

Terminal::~Terminal() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Terminal::Terminal(Terminal&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

Terminal& Terminal::operator=(Terminal&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

int Terminal::columns() const {
  winsize size = {};
  if (::ioctl(descriptor_, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}
}  // namespace trireme
