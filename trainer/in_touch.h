#pragma once
#include <atomic>
#include <cstdint>
#include <functional>

#include "dist/mpi_environment.h"

namespace trireme {

// What a piece of work tells of itself. Used by the thread that works.
class WorkReport {
 public:
  // `count` more units are done. Throws where another rank has failed or work is to stop, so that
  // it ends.
  void advance(int64_t count);

 private:
  friend void run_in_touch(MpiEnvironment& mpi, const std::function<void(WorkReport&)>& work,
                           const std::function<void(int64_t num_done)>& report);
  std::atomic<int64_t> num_done_ = 0;
  std::atomic<bool> is_abandoned_ = false;
};

// Thrown on all ranks by run_in_touch() where a WorkStopper ended the work.
struct WorkStopped {};

// While it lives, work in touch ends soon on all ranks once `wanted`, called twice a second, is
// true on any of them: nobody waits for the end of an evaluation that takes longer than a job's
// grace. One at a time, on the thread that calls run_in_touch().
class WorkStopper {
 public:
  explicit WorkStopper(std::function<bool()> wanted);
  ~WorkStopper();
  WorkStopper(const WorkStopper&) = delete;
  WorkStopper& operator=(const WorkStopper&) = delete;
};

// Runs `work` on every rank, each on a thread of its own, while the ranks keep in touch: at least
// twice a second they agree on how far all are, and `report` is called with the units done by all.
// So no rank waits inside a collective for another's work, however long and unequal the shares are,
// and a rank that is gone is noticed. Errors are agreed on as in run_on_all_ranks(). `work` calls
// no collectives and computes with as many LibTorch threads as the caller. Collective. Throws
// WorkStopped on all ranks.
void run_in_touch(MpiEnvironment& mpi, const std::function<void(WorkReport&)>& work,
                  const std::function<void(int64_t num_done)>& report = {});
}  // namespace trireme
