#include "data/hdf5_handles.h"

#include "core/error.h"

namespace trireme::hdf5 {
namespace {
constexpr std::string_view kLibraryInfo = H5_VERS_INFO;  // "HDF5 library version: 1.10.8"

std::recursive_mutex& library_mutex() {
  static std::recursive_mutex mutex;  // HDF5's own state is the process's.
  return mutex;
}

herr_t keep_innermost(unsigned level, const H5E_error2_t* error, void* text) {
  if (level == 0 && error->desc != nullptr) *static_cast<std::string*>(text) = error->desc;
  return 0;
}
}  // namespace

Scope::Scope() : lock_(library_mutex()) {
  H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

Scope::~Scope() { H5Eset_auto2(H5E_DEFAULT, function_, data_); }

std::string last_error() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &text);
  return text.empty() ? "no reason given" : text;
}

std::string remedy_of(std::string_view reason, std::string_view otherwise) {
  if (reason.find("truncated") != reason.npos) return "It is truncated; copy or make it again";
  if (reason.find("version") == reason.npos) return std::string(otherwise);
  return "If the file is whole, it is in a format newer than this program's HDF5, " +
         std::string(kLibraryInfo.substr(kLibraryInfo.rfind(' ') + 1)) +
         ": write it again with h5py.File(..., libver=(\"earliest\", \"v110\"))";
}

void throw_error(std::string_view doing, std::source_location where) {
  std::string_view file = where.file_name();
  if (const size_t slash = file.rfind("data/"); slash != file.npos) file.remove_prefix(slash);
  const std::string reason = last_error();
  throw InputError(
      "HDF5 could not " + std::string(doing) + ": " + reason + ". " +
      remedy_of(reason, "Check that the file is whole (h5ls, `trireme inspect --verify`)") +
      "; raised in " + std::string(file) + ":" + std::to_string(where.line()) + ".");
}
}  // namespace trireme::hdf5
