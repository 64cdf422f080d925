#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/hdf5_handles.h"

// How data/latent_writer.cc speaks to HDF5. Private to data/.
namespace trireme::hdf5 {

// A new HDF5 file that holds nothing but what it is given: no times, so that equal calls give equal
// bytes. Every failure throws UsageError naming the file. Holds HDF5's lock while it lives.
class FileWriter {
 public:
  // Creates or truncates.
  explicit FileWriter(const std::filesystem::path& file);

  void create_group(const std::string& path);
  void write_attribute(const std::string& object, const std::string& name,
                       const std::string& value);
  void write_attribute(const std::string& object, const std::string& name, double value);
  void write_attribute(const std::string& object, const std::string& name, int64_t value);

  enum class Number { kFloat16, kUint64 };  // Little-endian.
  // A contiguous dataset whose space exists at once but is not written. Returns its byte offset.
  uint64_t allocate_dataset(const std::string& path, Number type,
                            const std::vector<uint64_t>& shape);
  void write_dataset(const std::string& path, const std::vector<uint64_t>& shape,
                     const std::vector<int32_t>& values);
  // Variable-length UTF-8 strings.
  void write_strings(const std::string& path, const std::vector<std::string>& values);

  // Whole on disk, or an error. Nothing may be called after it.
  void close();

 private:
  template <typename Result>
  Result expect(Result result, const std::string& what) const;
  DatasetHandle create_dataset(const std::string& path, hid_t type,
                               const std::vector<uint64_t>& shape, H5D_fill_time_t fill);
  void write_scalar_attribute(const std::string& object, const std::string& name, hid_t type,
                              const void* value);

  std::filesystem::path path_;
  Scope scope_;  // Before the handle, which needs it to close.
  FileHandle file_;
};
}  // namespace trireme::hdf5
