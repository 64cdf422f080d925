#pragma once
#include <mutex>
#include <source_location>
#include <string>
#include <string_view>

#include <hdf5.h>

#include "core/handle.h"

// HDF5's C API behind handles. For .cc files of data/ only; no public header includes this one.
namespace trireme::hdf5 {

// Closes an identifier of one kind with the call that the kind needs.
template <herr_t (*close)(hid_t)>
struct Closer {
  static hid_t null() noexcept { return H5I_INVALID_HID; }
  static void destroy(hid_t id) noexcept { close(id); }
};

using FileHandle = UniqueHandle<hid_t, Closer<H5Fclose>>;
using GroupHandle = UniqueHandle<hid_t, Closer<H5Gclose>>;
using DatasetHandle = UniqueHandle<hid_t, Closer<H5Dclose>>;
using DataspaceHandle = UniqueHandle<hid_t, Closer<H5Sclose>>;
using DatatypeHandle = UniqueHandle<hid_t, Closer<H5Tclose>>;
using AttributeHandle = UniqueHandle<hid_t, Closer<H5Aclose>>;
using PropertiesHandle = UniqueHandle<hid_t, Closer<H5Pclose>>;
using ObjectHandle = UniqueHandle<hid_t, Closer<H5Oclose>>;

// One stretch of HDF5 calls, destruction of handles included: holds the process-wide lock (the
// library's state is the process's, and not every build of it is thread-safe) and keeps the library
// from printing its error stack. May be nested.
class Scope {
 public:
  Scope();
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  std::unique_lock<std::recursive_mutex> lock_;
  H5E_auto2_t function_ = nullptr;
  void* data_ = nullptr;
};

// What the last failed call of this thread says at its innermost point, or "no reason given".
[[nodiscard]] std::string last_error();

// What to do about a file of which HDF5 says `reason`. A version unknown to it is that of a newer
// library: h5py with libver="latest" writes such files. `otherwise`: where the reason tells
// nothing.
[[nodiscard]] std::string remedy_of(std::string_view reason, std::string_view otherwise);

[[noreturn]] void throw_error(std::string_view doing, std::source_location where);

// Returns `result` unless it is negative, HDF5's sign of failure; then throws InputError "could not
// DOING: REASON". REQUIRES: within a Scope.
template <typename T>
T check_h5(T result, std::string_view doing,
           std::source_location where = std::source_location::current()) {
  if (result < 0) throw_error(doing, where);
  return result;
}
}  // namespace trireme::hdf5
