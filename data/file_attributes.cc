#include "data/file_attributes.h"

#include "core/error.h"
#include "data/hdf5_attributes.h"
#include "data/hdf5_handles.h"

namespace trireme {

std::vector<std::pair<std::string, std::string>> read_file_attributes(
    const std::filesystem::path& file) {
  const hdf5::Scope scope;
  const hdf5::FileHandle handle(H5Fopen(file.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT));
  if (!handle) {
    throw InputError("cannot open " + file.string() + " as an HDF5 file: " + hdf5::last_error() +
                     ". See that it exists and is whole.");
  }
  return hdf5::list_attributes(handle.get());
}
}  // namespace trireme
