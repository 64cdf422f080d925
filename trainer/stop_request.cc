#include "trainer/stop_request.h"

#include <array>

namespace trireme {

bool StopRequest::is_made_here() const {
  if (options_.signal != nullptr && options_.signal->requested()) return true;
  const double limit = options_.max_hours * 3600.0;
  const double elapsed =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - options_.start).count();
  return mpi_.rank() == 0 && limit > 0 && elapsed + step_seconds_ >= limit;
}

bool StopRequest::is_made() {
  std::array<double, 1> requests{is_made_here() ? 1.0 : 0.0};
  mpi_.all_reduce_sum(requests);
  return requests[0] > 0.0;
}

std::string StopRequest::reason() const {
  if (options_.signal != nullptr && options_.signal->requested())
    return std::string(" (") + options_.signal->name() + ")";
  return is_made_here() ? " (run.max_hours)" : "";
}
}  // namespace trireme
