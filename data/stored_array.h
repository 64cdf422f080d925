#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/files.h"
#include "data/hdf5_handles.h"

namespace trireme::hdf5 {

enum class ElementKind { kFloat16, kFloat32, kFloat64, kInteger, kString };
enum class Signedness { kSigned, kUnsigned };
enum class ByteOrder { kNative, kSwapped };

struct ElementType {
  ElementKind kind = ElementKind::kFloat32;
  size_t size_bytes = 0;  // 0: strings of variable length.
  Signedness signedness = Signedness::kSigned;
  ByteOrder byte_order = ByteOrder::kNative;
  [[nodiscard]] std::string name() const;  // "float16", "uint8", "string"
};

// One plain dataset of a file: numbers or strings, contiguous, compact or chunked (deflate,
// shuffle, fletcher32), of any rank and byte order. Everything else is refused at opening. Rows are
// along the first dimension; contiguous ones are read by pread, others through HDF5 under its lock.
// Reading is thread-safe.
class StoredArray {
 public:
  // `raw` is the same file, for pread; it and `file` outlive the array. Throws InputError naming
  // file and dataset. REQUIRES: `path` is a dataset reached by hard links only; within a Scope.
  static StoredArray open(hid_t file, const File& raw, const std::string& path);

  [[nodiscard]] const std::vector<int64_t>& dims() const noexcept { return dims_; }
  [[nodiscard]] int64_t num_rows() const noexcept { return dims_.front(); }
  [[nodiscard]] int64_t row_elements() const noexcept { return row_elements_; }
  [[nodiscard]] size_t row_size_bytes() const noexcept;
  [[nodiscard]] const ElementType& type() const noexcept { return type_; }
  // "FILE", dataset /path
  [[nodiscard]] std::string describe() const;
  // The dataset's string attribute `name`. REQUIRES: within a Scope.
  [[nodiscard]] std::optional<std::string> string_attribute(const char* name) const;

  // The stored bytes of rows [first, first + count). REQUIRES: numbers; rows in range.
  void read_bytes(int64_t first, int64_t count, std::span<std::byte> out) const;
  // Turns stored bytes into numbers. REQUIRES: as many elements as out.
  void to_floats(std::span<std::byte> bytes, std::span<float> out) const;
  void read_floats(int64_t first, int64_t count, std::span<float> out) const;
  // Unsigned 64-bit values keep their bits. REQUIRES: kInteger.
  void read_integers(int64_t first, int64_t count, std::span<int64_t> out) const;
  // REQUIRES: kString, rank 1.
  [[nodiscard]] std::string read_string(int64_t index) const;

 private:
  StoredArray(const File& raw, std::string path) : raw_(&raw), path_(std::move(path)) {}
  void read_type();
  void read_dims();
  void read_layout();
  void check_filters(hid_t properties) const;
  void check_chunks(hid_t properties) const;
  void place_contiguous();
  [[nodiscard]] DataspaceHandle select(int64_t first, int64_t count, hid_t space) const;
  [[noreturn]] void refuse(const std::string& why) const;

  const File* raw_;
  std::string path_;
  DatasetHandle dataset_;
  ElementType type_;
  std::vector<int64_t> dims_;
  int64_t row_elements_ = 1;
  std::optional<uint64_t> offset_bytes_;  // Where contiguous data begin.
};
}  // namespace trireme::hdf5
