#include "core/files.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"

namespace trireme {
namespace {
std::string reason(int error_number) { return std::strerror(error_number); }

std::string quoted(const std::filesystem::path& path) { return "\"" + path.string() + "\""; }

std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}
}  // namespace

File::File(int descriptor, std::filesystem::path path)
    : descriptor_(descriptor), path_(std::move(path)) {}

File::File(File&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), path_(std::move(other.path_)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(path_, other.path_);
  return *this;
}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

File File::open_for_reading(const std::filesystem::path& path, std::string_view what) {
  // O_NONBLOCK: a named pipe must not make this wait; regular files do not care.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    const int error_number = errno;
    throw InputError("cannot open the " + std::string(what) + " " + quoted(path) + ": " +
                     reason(error_number) +
                     (error_number == ENOENT ? ". Check the path; relative paths are those of the "
                                               "working directory."
                                             : ". Check its permissions."));
  }
  File file(descriptor, path);
  struct stat status = {};
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    throw InputError("the " + std::string(what) + " " + quoted(path) +
                     (S_ISDIR(status.st_mode) ? " is a folder" : " is not a regular file") +
                     "; give the path of a file.");
  }
  return file;
}

File File::create(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor < 0) {
    throw UsageError("cannot create " + quoted(path) + ": " + reason(errno) +
                     ". Choose a place that exists and can be written to.");
  }
  return {descriptor, path};
}

uint64_t File::size_bytes() const {
  struct stat status = {};
  if (::fstat(descriptor_, &status) != 0) {
    throw InputError("cannot examine " + quoted(path_) + ": " + reason(errno) + ".");
  }
  return static_cast<uint64_t>(status.st_size);
}

void File::read_at(uint64_t offset_bytes, std::span<std::byte> out) const {
  const size_t wanted = out.size();
  while (!out.empty()) {
    const ssize_t count =
        ::pread(descriptor_, out.data(), out.size(), static_cast<off_t>(offset_bytes));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      throw InputError("cannot read " + quoted(path_) + " at byte " + std::to_string(offset_bytes) +
                       ": " + reason(errno) + ". Check the disk or network file system.");
    }
    if (count == 0) {
      throw InputError(quoted(path_) + " ends at byte " + std::to_string(offset_bytes) + ", " +
                       std::to_string(out.size()) + " bytes short of a piece of " +
                       std::to_string(wanted) + ": it is truncated. Copy or make it again.");
    }
    offset_bytes += static_cast<uint64_t>(count);
    out = out.subspan(static_cast<size_t>(count));
  }
}

void File::write_at(uint64_t offset_bytes, std::span<const std::byte> in) const {
  while (!in.empty()) {
    const ssize_t count =
        ::pwrite(descriptor_, in.data(), in.size(), static_cast<off_t>(offset_bytes));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      throw UsageError("cannot write " + quoted(path_) + " at byte " +
                       std::to_string(offset_bytes) + ": " + reason(count < 0 ? errno : EIO) +
                       ". Free space or choose another place.");
    }
    offset_bytes += static_cast<uint64_t>(count);
    in = in.subspan(static_cast<size_t>(count));
  }
}

void File::sync() const {
  if (::fsync(descriptor_) != 0) {
    throw UsageError("cannot bring " + quoted(path_) + " to disk: " + reason(errno) +
                     ". Free space or choose another place.");
  }
}

std::string read_text_file(const std::filesystem::path& path, std::string_view what,
                           uint64_t max_bytes) {
  const File file = File::open_for_reading(path, what);
  const uint64_t size_bytes = file.size_bytes();
  if (size_bytes > max_bytes) {
    throw InputError("the " + std::string(what) + " " + quoted(path) + " has " +
                     std::to_string(size_bytes) + " bytes, more than the " +
                     std::to_string(max_bytes) + " that such a file may have. Check the path.");
  }
  std::string text(size_bytes, '\0');
  file.read_at(0, std::as_writable_bytes(std::span(text)));
  return text;
}

void write_text_file_atomically(const std::filesystem::path& path, std::string_view text) {
  // The process id keeps two writers' temporary files apart.
  const std::filesystem::path beside = path.string() + ".tmp" + std::to_string(::getpid());
  try {
    const File file = File::create(beside);
    file.write_at(0, std::as_bytes(std::span(text)));
    file.sync();
    if (::rename(beside.c_str(), path.c_str()) != 0) {
      throw UsageError("cannot rename " + quoted(beside) + " to " + quoted(path) + ": " +
                       reason(errno) + ". Check the folder's permissions.");
    }
  } catch (...) {
    ::unlink(beside.c_str());
    throw;
  }
  sync_folder(folder_of(path));
}

void sync_folder(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) {
    throw UsageError("cannot open the folder " + quoted(folder) + ": " + reason(errno) +
                     ". Check that it exists and its permissions.");
  }
  const int result = ::fsync(descriptor);
  const int error_number = errno;
  ::close(descriptor);
  // Some network file systems cannot sync folders and need not.
  if (result != 0 && error_number != EINVAL && error_number != ENOTSUP && error_number != EROFS) {
    throw UsageError("cannot bring the folder " + quoted(folder) +
                     " to disk: " + reason(error_number) + ". Free space or choose another place.");
  }
}
}  // namespace trireme
