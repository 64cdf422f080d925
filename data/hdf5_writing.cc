#include "data/hdf5_writing.h"

#include "core/error.h"

namespace trireme::hdf5 {
namespace {

// Large datasets begin at pages, so that pwrite of whole pages stays aligned.
constexpr hsize_t kAlignmentThresholdBytes = 65536;
constexpr hsize_t kAlignmentBytes = 4096;

DatatypeHandle make_string_type() {
  DatatypeHandle type(H5Tcopy(H5T_C_S1));
  H5Tset_size(type.get(), H5T_VARIABLE);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  return type;
}

// Links that bear UTF-8 names; intermediate groups are made by the caller.
PropertiesHandle make_link_properties() {
  PropertiesHandle properties(H5Pcreate(H5P_LINK_CREATE));
  H5Pset_char_encoding(properties.get(), H5T_CSET_UTF8);
  return properties;
}

// IEEE binary16: h5py's float16.
DatatypeHandle make_half_type() {
  DatatypeHandle type(H5Tcopy(H5T_IEEE_F32LE));
  const bool made = H5Tset_fields(type.get(), 15, 10, 5, 0, 10) >= 0 &&
                    H5Tset_size(type.get(), 2) >= 0 && H5Tset_ebias(type.get(), 15) >= 0;
  check(made, "HDF5 makes a half-precision type");
  return type;
}
}  // namespace

template <typename Result>
Result FileWriter::expect(Result result, const std::string& what) const {
  if (result >= 0) return result;
  throw UsageError("cannot write the dataset " + path_.string() + ": failed to " + what + " (" +
                   last_error() + "). See that the folder exists, may be written and has space.");
}

FileWriter::FileWriter(const std::filesystem::path& file) : path_(file) {
  const PropertiesHandle creation(H5Pcreate(H5P_FILE_CREATE));
  const PropertiesHandle access(H5Pcreate(H5P_FILE_ACCESS));
  expect(H5Pset_obj_track_times(creation.get(), false), "leave times out");
  expect(H5Pset_libver_bounds(access.get(), H5F_LIBVER_V18, H5F_LIBVER_V18), "fix the version");
  expect(H5Pset_alignment(access.get(), kAlignmentThresholdBytes, kAlignmentBytes), "align");
#if H5_VERSION_GE(1, 10, 7)
  H5Pset_file_locking(access.get(), false, true);  // Not every file system has locks.
#endif
  file_ = FileHandle(
      expect(H5Fcreate(file.c_str(), H5F_ACC_TRUNC, creation.get(), access.get()), "create it"));
}

void FileWriter::create_group(const std::string& path) {
  const PropertiesHandle links = make_link_properties();
  const PropertiesHandle creation(H5Pcreate(H5P_GROUP_CREATE));
  H5Pset_obj_track_times(creation.get(), false);
  const GroupHandle group(
      expect(H5Gcreate2(file_.get(), path.c_str(), links.get(), creation.get(), H5P_DEFAULT),
             "create the group " + path));
}

DatasetHandle FileWriter::create_dataset(const std::string& path, hid_t type,
                                         const std::vector<uint64_t>& shape, H5D_fill_time_t fill) {
  const std::vector<hsize_t> extent(shape.begin(), shape.end());
  const DataspaceHandle space(expect(
      H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr), "set a shape"));
  const PropertiesHandle links = make_link_properties();
  const PropertiesHandle creation(H5Pcreate(H5P_DATASET_CREATE));
  H5Pset_obj_track_times(creation.get(), false);
  H5Pset_layout(creation.get(), H5D_CONTIGUOUS);
  H5Pset_alloc_time(creation.get(), H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(creation.get(), fill);
  return DatasetHandle(expect(H5Dcreate2(file_.get(), path.c_str(), type, space.get(), links.get(),
                                         creation.get(), H5P_DEFAULT),
                              "create the dataset " + path));
}

uint64_t FileWriter::allocate_dataset(const std::string& path, Number type,
                                      const std::vector<uint64_t>& shape) {
  const DatatypeHandle number =
      type == Number::kFloat16 ? make_half_type() : DatatypeHandle(H5Tcopy(H5T_STD_U64LE));
  const DatasetHandle dataset = create_dataset(path, number.get(), shape, H5D_FILL_TIME_NEVER);
  const haddr_t offset = H5Dget_offset(dataset.get());
  if (offset == HADDR_UNDEF) expect(-1, "allocate the dataset " + path);
  return offset;
}

void FileWriter::write_dataset(const std::string& path, const std::vector<uint64_t>& shape,
                               const std::vector<int32_t>& values) {
  const DatasetHandle dataset = create_dataset(path, H5T_STD_I32LE, shape, H5D_FILL_TIME_NEVER);
  expect(H5Dwrite(dataset.get(), H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()),
         "write the dataset " + path);
}

void FileWriter::write_strings(const std::string& path, const std::vector<std::string>& values) {
  const DatatypeHandle type = make_string_type();
  std::vector<const char*> pointers;
  pointers.reserve(values.size());
  for (const std::string& value : values) pointers.push_back(value.c_str());
  // References into the heap must be defined before they are replaced.
  const DatasetHandle dataset =
      create_dataset(path, type.get(), {values.size()}, H5D_FILL_TIME_IFSET);
  expect(H5Dwrite(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers.data()),
         "write the dataset " + path);
}

void FileWriter::write_scalar_attribute(const std::string& object, const std::string& name,
                                        hid_t type, const void* value) {
  const DataspaceHandle space(expect(H5Screate(H5S_SCALAR), "set a shape"));
  const PropertiesHandle creation(H5Pcreate(H5P_ATTRIBUTE_CREATE));
  H5Pset_char_encoding(creation.get(), H5T_CSET_UTF8);
  const AttributeHandle attribute(
      expect(H5Acreate_by_name(file_.get(), object.c_str(), name.c_str(), type, space.get(),
                               creation.get(), H5P_DEFAULT, H5P_DEFAULT),
             "create the attribute " + name));
  expect(H5Awrite(attribute.get(), type, value), "write the attribute " + name);
}

void FileWriter::write_attribute(const std::string& object, const std::string& name,
                                 const std::string& value) {
  const DatatypeHandle type = make_string_type();
  const char* text = value.c_str();
  write_scalar_attribute(object, name, type.get(), &text);
}

void FileWriter::write_attribute(const std::string& object, const std::string& name, double value) {
  write_scalar_attribute(object, name, H5T_IEEE_F64LE, &value);
}

void FileWriter::write_attribute(const std::string& object, const std::string& name,
                                 int64_t value) {
  write_scalar_attribute(object, name, H5T_STD_I64LE, &value);
}

void FileWriter::close() {
  expect(H5Fflush(file_.get(), H5F_SCOPE_GLOBAL), "flush it");
  expect(H5Fclose(file_.release()), "close it");
}
}  // namespace trireme::hdf5
