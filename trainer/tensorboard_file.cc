#include "trainer/tensorboard_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <span>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include "core/formatted.h"
#include "core/log.h"
#include "trainer/protobuf_writer.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;
constexpr std::string_view kNameStart = "events.out.tfevents.";
constexpr uint64_t kHeaderBytes = 12;  // Length, and its check.
constexpr uint64_t kFooterBytes = 4;   // The content's check.

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table = {};
  for (uint32_t i = 0; i < table.size(); ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ ((value & 1) != 0 ? 0x82f63b78U : 0U);
    table[i] = value;
  }
  return table;
}

template <typename T>
void append_little_endian(std::string& bytes, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) bytes += static_cast<char>(value >> (8 * i));
}

template <typename T>
T read_little_endian(const char* bytes) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value |= static_cast<T>(static_cast<T>(static_cast<unsigned char>(bytes[i])) << (8 * i));
  }
  return value;
}

std::string record_of(const std::string& event) {
  std::string record;
  append_little_endian(record, static_cast<uint64_t>(event.size()));
  append_little_endian(record, masked_crc32c(record));
  record += event;
  append_little_endian(record, masked_crc32c(event));
  return record;
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// Event: wall_time = 1, step = 2, file_version = 3, summary = 5. The step comes second, zero too,
// where step_of() looks for it.
ProtobufWriter event_at(int64_t step) {
  return ProtobufWriter().float64(1, now_seconds()).integer(2, step);
}

// The step of an event written by event_at(), from its first bytes.
std::optional<int64_t> step_of(std::string_view event) {
  constexpr size_t kStepAt = 10;
  if (event.size() <= kStepAt || event[0] != '\x09' || event[9] != '\x10') return std::nullopt;
  uint64_t step = 0;
  for (size_t i = 0; i < 10 && kStepAt + i < event.size(); ++i) {
    const auto byte = static_cast<unsigned char>(event[kStepAt + i]);
    step |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
    if ((byte & 0x80) == 0) return static_cast<int64_t>(step);
  }
  return std::nullopt;
}

// Where the first record begins that is not whole, not ours, or of a step after `keep_to`.
uint64_t end_of_kept(int descriptor, uint64_t size_bytes, int64_t keep_to) {
  uint64_t at = 0;
  std::array<char, kHeaderBytes + 24> head = {};
  while (at + kHeaderBytes + kFooterBytes <= size_bytes) {
    const ssize_t got = ::pread(descriptor, head.data(), head.size(), static_cast<off_t>(at));
    if (got < static_cast<ssize_t>(kHeaderBytes)) break;
    const auto length = read_little_endian<uint64_t>(head.data());
    if (read_little_endian<uint32_t>(head.data() + 8) != masked_crc32c({head.data(), 8})) break;
    if (length > size_bytes - at - kHeaderBytes - kFooterBytes) break;
    const auto seen = std::min<uint64_t>(length, static_cast<uint64_t>(got) - kHeaderBytes);
    const auto step = step_of({head.data() + kHeaderBytes, static_cast<size_t>(seen)});
    if (!step || *step > keep_to) break;
    at += kHeaderBytes + length + kFooterBytes;
  }
  return at;
}

std::string scalar_value(const std::string& tag, double value) {
  return ProtobufWriter().text(1, tag).float32(2, static_cast<float>(value)).bytes();
}

// google.protobuf.Value: number = 2, string = 3, bool = 4.
std::string value_of(const HyperParameter& parameter) {
  ProtobufWriter value;
  if (const auto* flag = std::get_if<bool>(&parameter.second)) {
    value.integer(4, *flag ? 1 : 0);
  } else if (const auto* number = std::get_if<double>(&parameter.second)) {
    value.float64(2, *number);
  } else {
    value.text(3, std::get<std::string>(parameter.second));
  }
  return value.bytes();
}

// What the HParams plug-in reads: a summary with an empty tensor, whose metadata carry
// HParamsPluginData { session_start_info = 3 { hparams = 1, start_time_secs = 5 } }.
std::string hyper_parameter_summary(const std::vector<HyperParameter>& parameters) {
  ProtobufWriter session;
  for (const auto& parameter : parameters) {
    session.text(1, ProtobufWriter().text(1, parameter.first).text(2, value_of(parameter)).bytes());
  }
  session.float64(5, now_seconds());
  const std::string plugin = ProtobufWriter()
                                 .text(1, "hparams")
                                 .text(2, ProtobufWriter().text(3, session.bytes()).bytes())
                                 .bytes();
  const std::string tensor =
      ProtobufWriter().integer(1, 1).text(2, ProtobufWriter().text(2, "").bytes()).bytes();
  const std::string value = ProtobufWriter()
                                .text(1, "_hparams_/session_start_info")
                                .text(8, tensor)
                                .text(9, ProtobufWriter().text(1, plugin).bytes())
                                .bytes();
  return ProtobufWriter().text(1, value).bytes();
}

// Width and height stand in a PNG's first chunk, big-endian.
int64_t png_number(const std::string& png, size_t at) {
  int64_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(png[at + i]);
  return value;
}

// The event file that is there, if any; the last by name where there are several.
fs::path find_event_file(const fs::path& folder) {
  fs::path found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (entry.path().filename().string().starts_with(kNameStart) && entry.path() > found)
      found = entry.path();
  }
  return found;
}
}  // namespace

uint32_t masked_crc32c(std::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = make_crc_table();
  uint32_t crc = 0xffffffffU;
  for (const char c : bytes) crc = kTable[(crc ^ static_cast<unsigned char>(c)) & 0xff] ^ crc >> 8;
  crc = ~crc;
  return (crc >> 15 | crc << 17) + 0xa282ead8U;
}

TensorboardFile::TensorboardFile(const fs::path& folder, int64_t keep_to,
                                 const std::vector<HyperParameter>& hyper_parameters) {
  std::error_code ignored;
  fs::create_directories(folder, ignored);
  file_ = find_event_file(folder);
  if (file_.empty()) {
    char host[256] = {};
    if (::gethostname(host, sizeof host - 1) != 0) host[0] = '\0';
    // Readers want this beginning; the rest tells runs apart.
    const std::string seconds = formatted("%010lld", static_cast<long long>(now_seconds()));
    file_ = folder /
            (std::string(kNameStart) + seconds + "." + host + "." + std::to_string(::getpid()));
  }
  descriptor_ = ::open(file_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  struct stat status = {};
  uint64_t kept = 0;
  bool is_ready = descriptor_ >= 0 && ::fstat(descriptor_, &status) == 0;
  if (is_ready) {
    kept = end_of_kept(descriptor_, static_cast<uint64_t>(status.st_size), keep_to);
    is_ready = ::ftruncate(descriptor_, static_cast<off_t>(kept)) == 0;
  }
  if (!is_ready) {
    log::warn(file_.string() + " cannot be written (" + std::strerror(errno) +
              "): this run goes on without TensorBoard's file");
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = -1;
  }
  if (kept > 0) return;
  write(event_at(0).text(3, "brain.Event:2").bytes());
  write(event_at(0).text(5, hyper_parameter_summary(hyper_parameters)).bytes());
}

TensorboardFile::~TensorboardFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void TensorboardFile::write(const std::string& event) {
  if (descriptor_ < 0) return;
  const std::string record = record_of(event);
  // A part of a record would hide what follows from readers: then nothing follows.
  ssize_t count = 0;
  do {
    count = ::write(descriptor_, record.data(), record.size());
  } while (count < 0 && errno == EINTR);
  if (count == static_cast<ssize_t>(record.size())) return;
  log::warn(file_.string() + " cannot be written (" +
            (count < 0 ? std::strerror(errno) : "the disk is full") +
            "): this run goes on without TensorBoard's file");
  ::close(descriptor_);
  descriptor_ = -1;
}

void TensorboardFile::add_metrics(const std::string& json_line) {
  const auto line = nlohmann::json::parse(json_line, nullptr, false);
  if (!line.is_object()) return;
  const std::string kind = line.value("kind", "");
  ProtobufWriter summary;
  for (const auto& [name, value] : line.items()) {
    if (!value.is_number() || name == "step") continue;
    summary.text(1, scalar_value(kind + "/" + name, value.get<double>()));
  }
  if (summary.bytes().empty()) return;
  write(event_at(line.value("step", int64_t{0})).text(5, summary.bytes()).bytes());
}

void TensorboardFile::add_picture(int64_t step, const std::string& name, const std::string& png) {
  constexpr size_t kHeaderEnd = 24;
  if (png.size() < kHeaderEnd) return;
  const std::string image = ProtobufWriter()
                                .integer(1, png_number(png, 20))
                                .integer(2, png_number(png, 16))
                                .integer(3, 3)  // RGB
                                .text(4, png)
                                .bytes();
  const std::string value = ProtobufWriter().text(1, name).text(4, image).bytes();
  write(event_at(step).text(5, ProtobufWriter().text(1, value).bytes()).bytes());
}

void TensorboardFile::flush() {
  if (descriptor_ >= 0) ::fdatasync(descriptor_);
}
}  // namespace trireme
