#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace trireme {

// A run's folder (docs/run_directory.md), owned by one run at a time. Rank 0 only.
class RunDirectory {
 public:
  enum class Start { kResume, kFresh };
  // Creates the folder where missing, takes the kernel lock (fcntl) on `lock`, waiting for it,
  // before anything is read. kFresh then removes what an earlier run left. Throws UsageError naming
  // the holder, or the reason why the folder cannot be written.
  RunDirectory(std::filesystem::path path, Start start,
               std::chrono::milliseconds lock_patience = std::chrono::seconds(15));
  ~RunDirectory();
  RunDirectory(const RunDirectory&) = delete;
  RunDirectory& operator=(const RunDirectory&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] std::filesystem::path config_file() const { return path_ / "config.toml"; }
  [[nodiscard]] std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  [[nodiscard]] std::filesystem::path samples() const { return path_ / "samples"; }
  [[nodiscard]] bool holds_run() const;  // Has a config.toml.

 private:
  std::filesystem::path path_;
  int lock_descriptor_ = -1;
};

// metrics.jsonl: one JSON object a line, appended and flushed as it happens. Rank 0 only.
class MetricsFile {
 public:
  // Cuts the file at `keep_bytes` (what the checkpoint recorded; 0 for a new run), then appends.
  MetricsFile(const std::filesystem::path& file, uint64_t keep_bytes);
  ~MetricsFile();
  MetricsFile(const MetricsFile&) = delete;
  MetricsFile& operator=(const MetricsFile&) = delete;
  void append(const std::string& json_line);
  [[nodiscard]] uint64_t size_bytes() const noexcept { return size_bytes_; }
  void sync();

 private:
  int descriptor_ = -1;
  uint64_t size_bytes_ = 0;
  std::filesystem::path file_;
};

// A flat JSON object, one line: numbers read back to the same double (float: same float); what is
// not finite is null; order is kept.
class JsonLine {
 public:
  JsonLine& add(const char* key, double value);
  JsonLine& add_float(const char* key, float value);
  JsonLine& add(const char* key, int64_t value);
  JsonLine& add(const char* key, const std::string& value);
  JsonLine& add(const char* key, const std::vector<double>& values);
  JsonLine& add(const char* key, const std::vector<std::string>& values);
  JsonLine& add_all(const JsonLine& other);  // Its members, after those that are there.
  [[nodiscard]] std::string text() const;

 private:
  std::string body_;
};
}  // namespace trireme
