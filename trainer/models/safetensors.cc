#include "trainer/models/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include "trainer/torch_api.h"

#include "core/error.h"
#include "core/files.h"
#include "trainer/models/json_file.h"

namespace trireme {
namespace {
static_assert(std::endian::native == std::endian::little,
              "safetensors stores little-endian numbers");

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // The limit of the reference implementation.
constexpr size_t kMaxDimensions = 32;

struct DtypeName {
  std::string_view name;
  at::ScalarType dtype;
  uint64_t size_bytes;
};
constexpr std::array<DtypeName, 10> kDtypes = {{{"F64", at::kDouble, 8},
                                                {"I64", at::kLong, 8},
                                                {"F32", at::kFloat, 4},
                                                {"I32", at::kInt, 4},
                                                {"F16", at::kHalf, 2},
                                                {"BF16", at::kBFloat16, 2},
                                                {"I16", at::kShort, 2},
                                                {"U8", at::kByte, 1},
                                                {"I8", at::kChar, 1},
                                                {"BOOL", at::kBool, 1}}};

[[noreturn]] void fail(const std::filesystem::path& file, const std::string& problem) {
  throw InputError(
      "The weights file " + file.string() + " is unusable: " + problem +
      ". It is truncated, damaged, or not a safetensors file; fetch or write it again.");
}

struct FileRange {
  uint64_t begin = 0;
  uint64_t end = 0;
  std::string name;
};

std::vector<int64_t> parse_shape(const nlohmann::json& value, const std::string& name,
                                 const std::filesystem::path& file) {
  if (!value.is_array() || value.size() > kMaxDimensions) {
    fail(file, "the shape of tensor '" + name + "' is not a list of at most 32 numbers");
  }
  std::vector<int64_t> shape;
  int64_t product = 1;  // Zeros count as ones, since torch computes strides the same way.
  for (const auto& item : value) {
    constexpr auto kMax = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    if (!item.is_number_unsigned() || item.get<uint64_t>() > kMax) {
      fail(file, "the shape of tensor '" + name + "' holds something else than whole numbers");
    }
    shape.push_back(item.get<int64_t>());
    if (__builtin_mul_overflow(product, std::max<int64_t>(shape.back(), 1), &product)) {
      fail(file, "the shape of tensor '" + name + "' overflows");
    }
  }
  return shape;
}

SafetensorsReader::Entry parse_entry(const nlohmann::json& value, const std::string& name,
                                     uint64_t data_bytes, const std::filesystem::path& file) {
  if (!value.is_object() || !value.contains("dtype") || !value["dtype"].is_string() ||
      !value.contains("shape") || !value.contains("data_offsets") || value.size() != 3) {
    fail(file, "the entry of tensor '" + name + "' lacks dtype, shape or data_offsets");
  }
  const auto dtype_name = value["dtype"].get<std::string>();
  const auto* dtype = std::ranges::find(kDtypes, dtype_name, &DtypeName::name);
  if (dtype == kDtypes.end()) {
    fail(file, "tensor '" + name + "' has dtype '" + dtype_name + "', which is not supported");
  }
  const auto& offsets = value["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    fail(file, "the data_offsets of tensor '" + name + "' are not two whole numbers");
  }
  const auto begin = offsets[0].get<uint64_t>();
  const auto end = offsets[1].get<uint64_t>();
  if (begin > end || end > data_bytes) {
    fail(file, "the data of tensor '" + name + "' (bytes " + std::to_string(begin) + " to " +
                   std::to_string(end) + ") lies outside of the file's " +
                   std::to_string(data_bytes) + " data bytes");
  }
  SafetensorsReader::Entry entry{.dtype = dtype->dtype,
                                 .shape = parse_shape(value["shape"], name, file),
                                 .offset_bytes = begin,
                                 .size_bytes = end - begin,
                                 .file_index = 0};
  uint64_t bytes = dtype->size_bytes;
  for (const int64_t dim : entry.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(dim), &bytes)) {
      fail(file, "the size of tensor '" + name + "' overflows");
    }
  }
  if (bytes != entry.size_bytes) {
    fail(file, "tensor '" + name + "' needs " + std::to_string(bytes) +
                   " bytes for its shape but has " + std::to_string(entry.size_bytes));
  }
  return entry;
}

// Every data byte belongs to exactly one tensor.
void check_cover(std::vector<FileRange> ranges, uint64_t data_bytes,
                 const std::filesystem::path& file) {
  std::ranges::sort(ranges, [](const FileRange& a, const FileRange& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t next = 0;
  for (const auto& range : ranges) {
    if (range.begin < next)
      fail(file, "the data of tensor '" + range.name + "' overlaps another's");
    if (range.begin > next) {
      fail(file, "there is a hole before the data of tensor '" + range.name + "'");
    }
    next = range.end;
  }
  if (next != data_bytes) {
    fail(file, "its tensors end at data byte " + std::to_string(next) + " of " +
                   std::to_string(data_bytes));
  }
}

std::map<std::string, std::string> parse_metadata(const nlohmann::json& value,
                                                  const std::filesystem::path& file) {
  std::map<std::string, std::string> metadata;
  if (!value.is_object()) fail(file, "its __metadata__ is not an object");
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) fail(file, "the metadata '" + key + "' is not a string");
    metadata.emplace(key, text.get<std::string>());
  }
  return metadata;
}

std::span<std::byte> bytes_of(at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}
}  // namespace

SafetensorsReader::SafetensorsReader(const std::filesystem::path& path) {
  if (path.extension() == ".json") {
    open_index(path);
  } else {
    open_file(path);
  }
}

void SafetensorsReader::open_file(const std::filesystem::path& file) {
  const size_t file_index = files_.size();
  files_.push_back(file);
  handles_.push_back(File::open_for_reading(file, "weights file"));
  const File& handle = handles_.back();
  const uint64_t size = handle.size_bytes();
  if (size < kLengthBytes) fail(file, "it has " + std::to_string(size) + " bytes");
  uint64_t header_bytes = 0;
  handle.read_at(0, std::as_writable_bytes(std::span(&header_bytes, 1)));
  if (header_bytes > kMaxHeaderBytes || header_bytes > size - kLengthBytes) {
    fail(file, "its header should have " + std::to_string(header_bytes) + " bytes, the file has " +
                   std::to_string(size));
  }
  std::string text(header_bytes, '\0');
  handle.read_at(kLengthBytes, std::as_writable_bytes(std::span(text)));
  const auto header = parse_json_object(text, file, "header", 3);

  const uint64_t data_start = kLengthBytes + header_bytes;
  const uint64_t data_bytes = size - data_start;
  std::vector<FileRange> ranges;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      metadata_.merge(parse_metadata(value, file));
      continue;
    }
    Entry entry = parse_entry(value, name, data_bytes, file);
    if (entry.size_bytes > 0) {
      ranges.push_back({entry.offset_bytes, entry.offset_bytes + entry.size_bytes, name});
    }
    entry.offset_bytes += data_start;
    entry.file_index = file_index;
    add_entry(name, std::move(entry));
  }
  check_cover(std::move(ranges), data_bytes, file);
}

void SafetensorsReader::add_entry(const std::string& name, Entry entry) {
  const std::filesystem::path& file = files_[entry.file_index];
  const auto [place, fresh] = entries_.try_emplace(name, std::move(entry));
  if (!fresh) {
    fail(file, "tensor '" + name + "' is also in " + files_[place->second.file_index].string());
  }
}

void SafetensorsReader::open_index(const std::filesystem::path& index) {
  const auto json = read_json_object(index, "weights index");
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object() || map->empty()) {
    fail(index, "it has no weight_map that lists tensors and their files");
  }
  std::set<std::string> names;
  for (const auto& [tensor, value] : map->items()) {
    const std::string name = value.is_string() ? value.get<std::string>() : "";
    if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
        name.find('\0') != std::string::npos) {
      fail(index, "tensor '" + tensor + "' is said to be in '" + name +
                      "', which is not the name of a file in the same folder");
    }
    names.insert(name);
  }
  for (const auto& name : names) open_file(index.parent_path() / name);
  for (const auto& [tensor, value] : map->items()) {
    const auto entry = entries_.find(tensor);
    if (entry == entries_.end() ||
        files_[entry->second.file_index].filename() != value.get<std::string>()) {
      fail(index, "tensor '" + tensor + "' is not in '" + value.get<std::string>() + "'");
    }
  }
  for (const auto& [tensor, entry] : entries_) {
    if (!map->contains(tensor)) {
      fail(index, "tensor '" + tensor + "' of " + files_[entry.file_index].string() +
                      " is not in the weight_map");
    }
  }
}

at::Tensor SafetensorsReader::read(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    throw InputError("The weights file " + files_.front().string() + " has no tensor '" + name +
                     "'; take weights of the kind that is asked for.");
  }
  const Entry& entry = found->second;
  at::Tensor tensor = at::empty(entry.shape, at::TensorOptions(entry.dtype));
  const auto bytes = bytes_of(tensor);
  if (!bytes.empty()) handles_[entry.file_index].read_at(entry.offset_bytes, bytes);
  if (entry.dtype == at::kBool &&
      std::ranges::any_of(bytes, [](std::byte b) { return std::to_integer<int>(b) > 1; })) {
    fail(files_[entry.file_index], "tensor '" + name + "' holds bytes that are no booleans");
  }
  return tensor;
}

void write_safetensors(const std::filesystem::path& file, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<std::pair<std::string, at::Tensor>> sorted(tensors);
  std::ranges::sort(sorted, [](const auto& a, const auto& b) {
    return std::pair(-a.second.element_size(), std::string_view(a.first)) <
           std::pair(-b.second.element_size(), std::string_view(b.first));
  });
  nlohmann::json header = nlohmann::json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const auto& [name, tensor] : sorted) {
    const auto* dtype = std::ranges::find(kDtypes, tensor.scalar_type(), &DtypeName::dtype);
    check(dtype != kDtypes.end(), "tensor " + name + " has a dtype that safetensors can hold");
    check(name != "__metadata__" && !header.contains(name), "tensor name " + name + " is unique");
    const uint64_t end = offset + tensor.nbytes();
    header[name] = {
        {"dtype", dtype->name}, {"shape", tensor.sizes().vec()}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t header_bytes = text.size();

  const File out = File::create(file);
  out.write_at(0, std::as_bytes(std::span(&header_bytes, 1)));
  out.write_at(kLengthBytes, std::as_bytes(std::span(text)));
  offset = kLengthBytes + header_bytes;
  for (const auto& [name, tensor] : sorted) {
    at::Tensor host = tensor.detach().to(at::kCPU).contiguous();
    const auto bytes = bytes_of(host);
    if (!bytes.empty()) out.write_at(offset, bytes);
    offset += bytes.size();
  }
  out.sync();
}
}  // namespace trireme
