#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace trireme {

// A key of the configuration and its value, as TensorBoard's HParams page shows it.
using HyperParameter = std::pair<std::string, std::variant<bool, double, std::string>>;

// A run's event file for TensorBoard (docs/tensorboard.md): scalars, pictures, hyperparameters, in
// one file whose steps ascend. What a resume will compute again is cut off before it, so no step
// appears twice. An error of the disk is warned of once and ends the writing; training goes on.
// Rank 0 only.
class TensorboardFile {
 public:
  static constexpr int64_t kKeepNothing = -1;
  // Opens the event file of `folder`, or starts one. Events after step `keep_to`, and a last record
  // that was not written whole, are cut off. Hyperparameters are written to a new file.
  TensorboardFile(const std::filesystem::path& folder, int64_t keep_to,
                  const std::vector<HyperParameter>& hyper_parameters);
  ~TensorboardFile();
  TensorboardFile(const TensorboardFile&) = delete;
  TensorboardFile& operator=(const TensorboardFile&) = delete;

  // Every number of a line of metrics.jsonl but its step becomes the scalar "KIND/MEMBER".
  void add_metrics(const std::string& json_line);
  void add_picture(int64_t step, const std::string& name, const std::string& png);
  void flush();  // To the disk.

 private:
  void write(const std::string& event);

  int descriptor_ = -1;  // -1: given up.
  std::filesystem::path file_;
};

// The cyclic redundancy check of TensorBoard's records: CRC-32C (Castagnoli), rotated and offset.
[[nodiscard]] uint32_t masked_crc32c(std::string_view bytes);
}  // namespace trireme
