#include "data/stored_array.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "core/error.h"
#include "core/half.h"
#include "data/hdf5_attributes.h"

namespace trireme::hdf5 {
namespace {
constexpr int64_t kMaxElements = int64_t{1} << 58;
constexpr size_t kMaxStringBytes = size_t{1} << 20;
constexpr uint64_t kMaxChunkBytes = uint64_t{1} << 30;

// The type that h5py calls float16; HDF5 1.10 has no name for it.
DatatypeHandle make_half_type() {
  DatatypeHandle type(check_h5(H5Tcopy(H5T_IEEE_F32LE), "make a float16 type"));
  check_h5(H5Tset_fields(type.get(), 15, 10, 5, 0, 10), "make a float16 type");
  check_h5(H5Tset_size(type.get(), 2), "make a float16 type");
  check_h5(H5Tset_ebias(type.get(), 15), "make a float16 type");
  return type;
}

std::optional<ElementKind> float_kind(hid_t type) {
  const DatatypeHandle little(check_h5(H5Tcopy(type), "read a type"));
  check_h5(H5Tset_order(little.get(), H5T_ORDER_LE), "read a type");
  if (H5Tequal(little.get(), H5T_IEEE_F32LE) > 0) return ElementKind::kFloat32;
  if (H5Tequal(little.get(), H5T_IEEE_F64LE) > 0) return ElementKind::kFloat64;
  if (H5Tequal(little.get(), make_half_type().get()) > 0) return ElementKind::kFloat16;
  return std::nullopt;
}

bool is_plain_integer(hid_t type) {
  const size_t size_bytes = H5Tget_size(type);
  return std::has_single_bit(size_bytes) && size_bytes <= 8 &&
         H5Tget_precision(type) == 8 * size_bytes && H5Tget_offset(type) == 0;
}

void swap_bytes(std::span<std::byte> bytes, size_t element_size_bytes) {
  for (size_t i = 0; i + element_size_bytes <= bytes.size(); i += element_size_bytes) {
    std::reverse(bytes.begin() + static_cast<std::ptrdiff_t>(i),
                 bytes.begin() + static_cast<std::ptrdiff_t>(i + element_size_bytes));
  }
}

template <typename Stored, typename Out>
void convert(std::span<const std::byte> bytes, std::span<Out> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    Stored value;
    std::memcpy(&value, bytes.data() + i * sizeof(Stored), sizeof(Stored));
    out[i] = static_cast<Out>(value);  // NOLINT(bugprone-signed-char-misuse): a number, no text
  }
}

template <typename Out>
void convert_integers(const ElementType& type, std::span<const std::byte> bytes,
                      std::span<Out> out) {
  const bool is_signed = type.signedness == Signedness::kSigned;
  switch (type.size_bytes) {
    case 1:
      return is_signed ? convert<int8_t>(bytes, out) : convert<uint8_t>(bytes, out);
    case 2:
      return is_signed ? convert<int16_t>(bytes, out) : convert<uint16_t>(bytes, out);
    case 4:
      return is_signed ? convert<int32_t>(bytes, out) : convert<uint32_t>(bytes, out);
    default:
      return is_signed ? convert<int64_t>(bytes, out) : convert<uint64_t>(bytes, out);
  }
}
}  // namespace

std::string ElementType::name() const {
  const std::string bits = std::to_string(8 * size_bytes);
  switch (kind) {
    case ElementKind::kInteger:
      return (signedness == Signedness::kSigned ? "int" : "uint") + bits;
    case ElementKind::kString:
      return "string";
    default:
      return "float" + bits;
  }
}

StoredArray StoredArray::open(hid_t file, const File& raw, const std::string& path) {
  StoredArray array(raw, path);
  array.dataset_ = DatasetHandle(
      check_h5(H5Dopen2(file, path.c_str(), H5P_DEFAULT), "open " + array.describe()));
  array.read_type();
  array.read_dims();
  array.read_layout();
  return array;
}

std::string StoredArray::describe() const {
  return "\"" + raw_->path().string() + "\", dataset " + path_;
}

void StoredArray::refuse(const std::string& why) const {
  throw InputError(describe() + " " + why + ". See docs/dataset_format.md.");
}

size_t StoredArray::row_size_bytes() const noexcept {
  return static_cast<size_t>(row_elements_) * type_.size_bytes;
}

std::optional<std::string> StoredArray::string_attribute(const char* name) const {
  return read_string_attribute(dataset_.get(), name, describe());
}

void StoredArray::read_type() {
  const DatatypeHandle type(
      check_h5(H5Dget_type(dataset_.get()), "read the type of " + describe()));
  const H5T_class_t kind = H5Tget_class(type.get());
  type_.size_bytes = H5Tget_size(type.get());
  if (kind == H5T_STRING) {
    type_.kind = ElementKind::kString;
    if (H5Tis_variable_str(type.get()) > 0) type_.size_bytes = 0;
    if (type_.size_bytes > kMaxStringBytes) refuse("has strings of more than 1 MiB");
    return;
  }
  if (kind == H5T_FLOAT) {
    const auto float_type = float_kind(type.get());
    if (!float_type) refuse("is of a floating-point type other than float16, float32 and float64");
    type_.kind = *float_type;
  } else if (kind == H5T_INTEGER) {
    if (!is_plain_integer(type.get())) refuse("is of an integer type with unused bits");
    type_.kind = ElementKind::kInteger;
    type_.signedness =
        H5Tget_sign(type.get()) == H5T_SGN_NONE ? Signedness::kUnsigned : Signedness::kSigned;
  } else {
    refuse("holds neither numbers nor strings");
  }
  const H5T_order_t native =
      std::endian::native == std::endian::little ? H5T_ORDER_LE : H5T_ORDER_BE;
  type_.byte_order = type_.size_bytes == 1 || H5Tget_order(type.get()) == native
                         ? ByteOrder::kNative
                         : ByteOrder::kSwapped;
}

void StoredArray::read_dims() {
  const DataspaceHandle space(
      check_h5(H5Dget_space(dataset_.get()), "read the shape of " + describe()));
  if (H5Sget_simple_extent_type(space.get()) != H5S_SIMPLE) refuse("is not an array");
  std::array<hsize_t, H5S_MAX_RANK> dims = {};
  const int rank = check_h5(H5Sget_simple_extent_dims(space.get(), dims.data(), nullptr),
                            "read the shape of " + describe());
  if (rank < 1) refuse("is not an array");
  __int128 total = 1;
  for (int i = 0; i < rank; ++i) {
    const hsize_t dim = dims[static_cast<size_t>(i)];
    if (dim > static_cast<hsize_t>(kMaxElements)) refuse("is impossibly large");
    dims_.push_back(static_cast<int64_t>(dim));
    total *= std::max<__int128>(1, static_cast<__int128>(dim));
    if (total > kMaxElements) refuse("is impossibly large");
    if (i > 0) row_elements_ *= static_cast<int64_t>(dim);
  }
}

void StoredArray::read_layout() {
  const PropertiesHandle properties(
      check_h5(H5Dget_create_plist(dataset_.get()), "read the layout of " + describe()));
  if (H5Pget_external_count(properties.get()) > 0) {
    refuse("keeps its data in other files (external storage), which is refused; copy them in");
  }
  switch (H5Pget_layout(properties.get())) {
    case H5D_CONTIGUOUS:
      return place_contiguous();
    case H5D_CHUNKED:
      check_filters(properties.get());
      return check_chunks(properties.get());
    case H5D_COMPACT:
      return;
    case H5D_VIRTUAL:
      refuse("is a virtual dataset, which is refused; copy the data in");
    default:
      refuse("has an unknown layout");
  }
}

void StoredArray::check_filters(hid_t properties) const {
  const int num_filters =
      check_h5(H5Pget_nfilters(properties), "read the filters of " + describe());
  for (int i = 0; i < num_filters; ++i) {
    unsigned flags = 0;
    unsigned config = 0;
    size_t num_values = 0;
    std::array<char, 64> name = {};
    const H5Z_filter_t filter =
        check_h5(H5Pget_filter2(properties, static_cast<unsigned>(i), &flags, &num_values, nullptr,
                                name.size(), name.data(), &config),
                 "read the filters of " + describe());
    if (filter == H5Z_FILTER_DEFLATE || filter == H5Z_FILTER_SHUFFLE ||
        filter == H5Z_FILTER_FLETCHER32) {
      continue;
    }
    name.back() = '\0';
    refuse("is stored with the filter \"" + std::string(name.data()) + "\" (number " +
           std::to_string(filter) + "); only deflate (gzip) and shuffle are read");
  }
}

void StoredArray::check_chunks(hid_t properties) const {
  std::array<hsize_t, H5S_MAX_RANK> chunk = {};
  const int rank = check_h5(H5Pget_chunk(properties, H5S_MAX_RANK, chunk.data()),
                            "read the chunks of " + describe());
  // Dimensions of a chunk are below 2^32 and so is its size: HDF5's own limit, and it checks it.
  uint64_t chunk_bytes = std::max<size_t>(type_.size_bytes, 1);
  uint64_t num_expected = 1;
  for (size_t i = 0; i < static_cast<size_t>(rank); ++i) {
    chunk_bytes *= chunk[i];
    num_expected *= (static_cast<hsize_t>(dims_[i]) + chunk[i] - 1) / chunk[i];
    if (chunk_bytes > kMaxChunkBytes) refuse("has chunks of more than 1 GiB");
  }
  const DataspaceHandle space(check_h5(H5Dget_space(dataset_.get()), "read " + describe()));
  hsize_t num_chunks = 0;
  check_h5(H5Dget_num_chunks(dataset_.get(), space.get(), &num_chunks),
           "count the chunks of " + describe());
  if (num_chunks < num_expected) {
    refuse("is incomplete: " + std::to_string(num_expected - num_chunks) + " of " +
           std::to_string(num_expected) + " chunks were never written; make the file again");
  }
}

void StoredArray::place_contiguous() {
  if (type_.kind == ElementKind::kString && type_.size_bytes == 0) return;
  const __int128 needed =
      static_cast<__int128>(num_rows()) * row_elements_ * static_cast<__int128>(type_.size_bytes);
  if (needed == 0) return;
  const haddr_t offset = H5Dget_offset(dataset_.get());
  if (offset == HADDR_UNDEF) refuse("was created but never written");
  const uint64_t file_size_bytes = raw_->size_bytes();
  const __int128 end = static_cast<__int128>(offset) + needed;
  if (needed > static_cast<__int128>(H5Dget_storage_size(dataset_.get())) ||
      end > static_cast<__int128>(file_size_bytes)) {
    refuse("reaches beyond the end of the file (" + std::to_string(file_size_bytes) +
           " bytes): the file is truncated or damaged; copy or make it again");
  }
  offset_bytes_ = offset;
}

DataspaceHandle StoredArray::select(int64_t first, int64_t count, hid_t space) const {
  std::vector<hsize_t> start(dims_.size(), 0);
  std::vector<hsize_t> extent(dims_.begin(), dims_.end());
  start[0] = static_cast<hsize_t>(first);
  extent[0] = static_cast<hsize_t>(count);
  check_h5(
      H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, extent.data(), nullptr),
      "select rows of " + describe());
  return DataspaceHandle(check_h5(
      H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr), "select rows"));
}

void StoredArray::read_bytes(int64_t first, int64_t count, std::span<std::byte> out) const {
  check(first >= 0 && count >= 0 && first + count <= num_rows(), "rows outside a dataset");
  check(out.size() == static_cast<size_t>(count) * row_size_bytes(), "buffer of another size");
  if (out.empty()) return;
  if (offset_bytes_) {
    return raw_->read_at(*offset_bytes_ + static_cast<uint64_t>(first) * row_size_bytes(), out);
  }
  const Scope scope;
  const DatatypeHandle type(check_h5(H5Dget_type(dataset_.get()), "read " + describe()));
  const DataspaceHandle space(check_h5(H5Dget_space(dataset_.get()), "read " + describe()));
  const DataspaceHandle memory = select(first, count, space.get());
  check_h5(H5Dread(dataset_.get(), type.get(), memory.get(), space.get(), H5P_DEFAULT, out.data()),
           "read rows " + std::to_string(first) + " to " + std::to_string(first + count - 1) +
               " of " + describe());
}

void StoredArray::to_floats(std::span<std::byte> bytes, std::span<float> out) const {
  check(bytes.size() == out.size() * type_.size_bytes, "buffer of another size");
  if (type_.byte_order == ByteOrder::kSwapped) swap_bytes(bytes, type_.size_bytes);
  switch (type_.kind) {
    case ElementKind::kFloat16:
      return half_to_float({reinterpret_cast<const uint16_t*>(bytes.data()), out.size()}, out);
    case ElementKind::kFloat32:
      std::memcpy(out.data(), bytes.data(), bytes.size());
      return;
    case ElementKind::kFloat64:
      return convert<double>(bytes, out);
    case ElementKind::kInteger:
      return convert_integers(type_, bytes, out);
    case ElementKind::kString:
      break;
  }
  check(false, "strings are no numbers");
}

void StoredArray::read_floats(int64_t first, int64_t count, std::span<float> out) const {
  if (type_.kind == ElementKind::kFloat32 && type_.byte_order == ByteOrder::kNative) {
    return read_bytes(first, count, std::as_writable_bytes(out));
  }
  std::vector<std::byte> bytes(static_cast<size_t>(count) * row_size_bytes());
  read_bytes(first, count, bytes);
  to_floats(bytes, out);
}

void StoredArray::read_integers(int64_t first, int64_t count, std::span<int64_t> out) const {
  std::vector<std::byte> bytes(static_cast<size_t>(count) * row_size_bytes());
  read_bytes(first, count, bytes);
  if (type_.byte_order == ByteOrder::kSwapped) swap_bytes(bytes, type_.size_bytes);
  convert_integers(type_, bytes, out);
}

std::string StoredArray::read_string(int64_t index) const {
  check(index >= 0 && index < num_rows() && dims_.size() == 1, "string outside a dataset");
  const Scope scope;
  const DatatypeHandle type(check_h5(H5Dget_type(dataset_.get()), "read " + describe()));
  const DataspaceHandle space(check_h5(H5Dget_space(dataset_.get()), "read " + describe()));
  const DataspaceHandle memory = select(index, 1, space.get());
  std::vector<char> bytes(std::max(type_.size_bytes, sizeof(char*)));
  check_h5(
      H5Dread(dataset_.get(), type.get(), memory.get(), space.get(), H5P_DEFAULT, bytes.data()),
      "read row " + std::to_string(index) + " of " + describe());
  std::string text = string_from(type.get(), bytes.data());
  if (type_.size_bytes == 0) {
    H5Dvlen_reclaim(type.get(), memory.get(), H5P_DEFAULT, bytes.data());
  }
  return text;
}
}  // namespace trireme::hdf5
