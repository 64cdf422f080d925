#include "data/file_attributes.h"

#include "core/error.h"
#include "data/hdf5_attributes.h"
#include "data/hdf5_handles.h"

namespace trireme {

bool is_hdf5_file(const std::filesystem::path& file) {
  const hdf5::Scope scope;
  return std::filesystem::is_regular_file(file) && H5Fis_hdf5(file.c_str()) > 0;
}

std::vector<std::pair<std::string, std::string>> read_file_attributes(
    const std::filesystem::path& file) {
  const hdf5::Scope scope;
  const hdf5::PropertiesHandle access(H5Pcreate(H5P_FILE_ACCESS));
#if H5_VERSION_GE(1, 10, 7)
  H5Pset_file_locking(access.get(), false, true);  // As data/latent_file.cc has it open.
#endif
  const hdf5::FileHandle handle(H5Fopen(file.c_str(), H5F_ACC_RDONLY, access.get()));
  if (!handle) {
    throw InputError("cannot open " + file.string() + " as an HDF5 file: " + hdf5::last_error() +
                     ". See that it exists and is whole.");
  }
  return hdf5::list_attributes(handle.get());
}
}  // namespace trireme
