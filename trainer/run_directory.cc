#include "trainer/run_directory.h"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <string_view>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/log.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;
constexpr auto kLockPoll = std::chrono::milliseconds(50);

[[noreturn]] void throw_unusable(const fs::path& path, const std::string& reason) {
  throw UsageError("the run directory " + path.string() + " cannot be used: " + reason +
                   ". Choose a folder that can be written, by run.dir or --run-dir.");
}

std::string reason_of(int error_number) { return std::strerror(error_number); }

struct flock whole_file(short type) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return lock;
}

// What the holder wrote into the lock file, else the process that the kernel names.
std::string holder_of(int descriptor) {
  char text[256] = {};
  const ssize_t length = ::pread(descriptor, text, sizeof(text) - 1, 0);
  std::string holder;
  for (ssize_t i = 0; i < length && text[i] != '\n'; ++i) {
    holder += static_cast<unsigned char>(text[i]) >= 0x20 ? text[i] : '?';
  }
  if (!holder.empty()) return holder;
  struct flock lock = whole_file(F_WRLCK);
  if (::fcntl(descriptor, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK && lock.l_pid > 0) {
    return "process " + std::to_string(lock.l_pid);
  }
  return "another process";
}

void wait_for_lock(int descriptor, const fs::path& path, std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (bool waiting = false;; waiting = true) {
    struct flock lock = whole_file(F_WRLCK);
    if (::fcntl(descriptor, F_SETLK, &lock) == 0) return;
    if (errno != EACCES && errno != EAGAIN && errno != EINTR) {
      throw_unusable(path, "its file `lock` cannot be locked (" + reason_of(errno) + ")");
    }
    if (!waiting) {
      log::info("the run directory " + path.string() + " is held by " + holder_of(descriptor) +
                "; waiting up to " + std::to_string((patience.count() + 999) / 1000) + " s for it");
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      throw UsageError(
          "the run directory " + path.string() + " is held by " + holder_of(descriptor) +
          ", which still runs. Wait for that run or stop it, or choose another folder by "
          "run.dir or --run-dir.");
    }
    std::this_thread::sleep_for(kLockPoll);  // F_SETLKW knows no deadline.
  }
}

void write_holder(int descriptor) {
  char host[256] = {};
  if (::gethostname(host, sizeof(host) - 1) != 0) host[0] = '\0';
  const std::string text = "process " + std::to_string(::getpid()) + " on " + host + "\n";
  if (::ftruncate(descriptor, 0) != 0 ||
      ::pwrite(descriptor, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
    log::warn("the lock file cannot be written (" + reason_of(errno) +
              "); the lock itself is held");
  }
}

void remove_earlier_run(const fs::path& path) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(path, error)) {
    const std::string name = entry.path().filename().string();
    const bool log_file =
        name == "log.txt" || (name.starts_with("log.rank") && name.ends_with(".txt"));
    const bool known = name == "metrics.jsonl" || name == "provenance.jsonl" ||
                       name == "checkpoints" || name == "samples" || name == "trace" ||
                       name == "tensorboard" || name == "report.html";
    if (!log_file && !known) continue;
    std::error_code removal;
    fs::remove_all(entry.path(), removal);
    if (removal) throw_unusable(path, "cannot remove " + name + " (" + removal.message() + ")");
  }
  fs::remove(path / "config.toml", error);  // Last: until then the folder still counts as a run.
  if (error) throw_unusable(path, "its files cannot be removed (" + error.message() + ")");
}
}  // namespace

RunDirectory::RunDirectory(fs::path path, Start start, std::chrono::milliseconds lock_patience)
    : path_(std::move(path)) {
  std::error_code error;
  fs::create_directories(path_, error);
  if (error) throw_unusable(path_, error.message());
  if (!fs::is_directory(path_, error)) throw_unusable(path_, "it is not a folder");
  if (::access(path_.c_str(), W_OK | X_OK) != 0) throw_unusable(path_, reason_of(errno));
  const fs::path lock_file = path_ / "lock";
  const bool had_lock = fs::exists(lock_file, error);
  lock_descriptor_ = ::open(lock_file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_descriptor_ < 0)
    throw_unusable(path_, "its file `lock` cannot be opened (" + reason_of(errno) + ")");
  try {
    wait_for_lock(lock_descriptor_, path_, lock_patience);
    write_holder(lock_descriptor_);
    if (start == Start::kFresh && holds_run()) {
      if (!had_lock) {
        fs::remove(lock_file, error);
        throw UsageError("the folder " + path_.string() +
                         " holds a config.toml but no `lock`, so it is not known to be a run's "
                         "folder, and --fresh "
                         "removes nothing from it. Choose another folder by run.dir or --run-dir.");
      }
      remove_earlier_run(path_);
    }
  } catch (...) {
    ::close(lock_descriptor_);
    throw;
  }
}

RunDirectory::~RunDirectory() {
  if (lock_descriptor_ >= 0)
    ::close(lock_descriptor_);  // Frees the lock. The file stays: others may wait on it.
}

bool RunDirectory::holds_run() const {
  std::error_code error;
  return fs::is_regular_file(config_file(), error);
}
}  // namespace trireme
