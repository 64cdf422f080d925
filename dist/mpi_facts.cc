#include "dist/mpi_facts.h"

#include <array>

#include <dlfcn.h>
#include <mpi.h>

namespace trireme {
std::string mpi_library_version() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  std::string version(text.data(), static_cast<size_t>(length));
  version = version.substr(0, version.find_first_of(",\n"));  // Open MPI adds package and date.
  const size_t at = version.find("Open MPI v");
  return at == std::string::npos ? version : "Open MPI " + version.substr(at + 10);
}

std::string pmix_version() {
  // MPI loads it as a plug-in's library; its text is "OpenPMIx 4.2.2 (PMIx Standard: …)".
  void* library = dlopen("libpmix.so.2", RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) return {};
  auto* get_version = reinterpret_cast<const char* (*)()>(dlsym(library, "PMIx_Get_version"));
  const std::string text = get_version == nullptr ? "" : get_version();
  dlclose(library);
  const size_t first = text.find_first_of("0123456789");
  if (first == std::string::npos) return {};
  return text.substr(first, text.find_first_not_of("0123456789.", first) - first);
}

std::string mpi_thread_level() {
  int level = MPI_THREAD_SINGLE;
  MPI_Query_thread(&level);
  switch (level) {
    case MPI_THREAD_MULTIPLE:
      return "MPI_THREAD_MULTIPLE";
    case MPI_THREAD_SERIALIZED:
      return "MPI_THREAD_SERIALIZED";
    case MPI_THREAD_FUNNELED:
      return "MPI_THREAD_FUNNELED";
    default:
      return "MPI_THREAD_SINGLE";
  }
}
}  // namespace trireme
