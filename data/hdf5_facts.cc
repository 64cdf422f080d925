#include "data/hdf5_facts.h"

#include <hdf5.h>

namespace trireme {
Hdf5Facts hdf5_facts() {
  unsigned major = 0;
  unsigned minor = 0;
  unsigned release = 0;
  hbool_t is_thread_safe = 0;
  H5get_libversion(&major, &minor, &release);
  H5is_library_threadsafe(&is_thread_safe);
  const auto text = [](unsigned a, unsigned b, unsigned c) {
    return std::to_string(a) + "." + std::to_string(b) + "." + std::to_string(c);
  };
#ifdef H5_HAVE_PARALLEL
  constexpr bool kIsParallel = true;
#else
  constexpr bool kIsParallel = false;
#endif
  return {.version = text(major, minor, release),
          .headers = text(H5_VERS_MAJOR, H5_VERS_MINOR, H5_VERS_RELEASE),
          .is_thread_safe = is_thread_safe != 0,
          .is_parallel = kIsParallel};
}
}  // namespace trireme
