#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <string_view>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/log.h"
#include "trainer/run_directory.h"

namespace trireme {
namespace {
[[noreturn]] void throw_unwritable(const std::filesystem::path& file, int error_number) {
  throw UsageError(
      file.string() + " cannot be written: " + std::strerror(error_number) +
      ". Free space or mend the permissions, then run again: the run goes on from its newest "
      "checkpoint.");
}

// The end of the last whole line within the first `size_bytes`.
uint64_t end_of_last_line(int descriptor, uint64_t size_bytes) {
  char buffer[4096];
  while (size_bytes > 0) {
    const uint64_t count = std::min<uint64_t>(size_bytes, sizeof(buffer));
    const ssize_t got = ::pread(descriptor, buffer, count, static_cast<off_t>(size_bytes - count));
    if (got <= 0) return 0;
    const size_t place = std::string_view(buffer, static_cast<size_t>(got)).rfind('\n');
    if (place != std::string_view::npos) return size_bytes - count + place + 1;
    size_bytes -= count;
  }
  return 0;
}

// JSON has no infinities and wants a digit before and after the point, as to_chars gives.
template <typename T>
std::string number_text(T value) {
  char buffer[64];
  return {buffer, std::to_chars(buffer, buffer + sizeof(buffer), value).ptr};
}

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void add_member(std::string& body, const char* key, const std::string& value) {
  if (!body.empty()) body += ',';
  body += quoted(key) + ':' + value;
}
}  // namespace

MetricsFile::MetricsFile(const std::filesystem::path& file, uint64_t keep_bytes) : file_(file) {
  descriptor_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw_unwritable(file, errno);
  struct stat status = {};
  if (::fstat(descriptor_, &status) != 0) throw_unwritable(file, errno);
  size_bytes_ = keep_bytes;
  const auto present = static_cast<uint64_t>(status.st_size);
  if (present < keep_bytes) {
    size_bytes_ = end_of_last_line(descriptor_, present);
    log::warn(file.string() + " is shorter (" + std::to_string(present) +
              " bytes) than its checkpoint recorded (" + std::to_string(keep_bytes) +
              "): lines of earlier steps are missing");
  }
  if (size_bytes_ < present && ::ftruncate(descriptor_, static_cast<off_t>(size_bytes_)) != 0) {
    const int error_number = errno;
    ::close(descriptor_);
    throw_unwritable(file, error_number);
  }
}

MetricsFile::~MetricsFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void MetricsFile::append(const std::string& json_line) {
  const std::string line = json_line + '\n';
  size_t done = 0;
  while (done < line.size()) {
    const ssize_t count = ::write(descriptor_, line.data() + done, line.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_unwritable(file_, errno);
    done += static_cast<size_t>(count);
  }
  size_bytes_ += line.size();
}

void MetricsFile::sync() {
  if (::fsync(descriptor_) != 0) throw_unwritable(file_, errno);
}

JsonLine& JsonLine::add(const char* key, double value) {
  add_member(body_, key, std::isfinite(value) ? number_text(value) : "null");
  return *this;
}

JsonLine& JsonLine::add_float(const char* key, float value) {
  if (!std::isfinite(value)) return add(key, static_cast<double>(value));
  std::string text = number_text(value);
  double read = 0.0;
  std::from_chars(text.data(), text.data() + text.size(), read);
  // Readers parse doubles; rounding twice may miss the float by one.
  if (static_cast<float>(read) != value) text = number_text(static_cast<double>(value));
  add_member(body_, key, text);
  return *this;
}

JsonLine& JsonLine::add(const char* key, int64_t value) {
  add_member(body_, key, std::to_string(value));
  return *this;
}

JsonLine& JsonLine::add(const char* key, const std::string& value) {
  add_member(body_, key, quoted(value));
  return *this;
}

JsonLine& JsonLine::add(const char* key, const std::vector<double>& values) {
  std::string list;
  for (const double value : values) {
    list += (list.empty() ? "" : ",") + (std::isfinite(value) ? number_text(value) : "null");
  }
  add_member(body_, key, '[' + list + ']');
  return *this;
}

JsonLine& JsonLine::add(const char* key, const std::vector<std::string>& values) {
  std::string list;
  for (const auto& value : values) list += (list.empty() ? "" : ",") + quoted(value);
  add_member(body_, key, '[' + list + ']');
  return *this;
}

JsonLine& JsonLine::add_all(const JsonLine& other) {
  if (!body_.empty() && !other.body_.empty()) body_ += ',';
  body_ += other.body_;
  return *this;
}

std::string JsonLine::text() const { return '{' + body_ + '}'; }
}  // namespace trireme
