#include "trainer/group_work.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <future>
#include <vector>

#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr int64_t kGroupsPerWorker = 4;  // In a round.

void run_in_parallel(int64_t num_workers, int64_t begin, int64_t end,
                     const std::function<void(int64_t)>& work) {
  std::atomic<int64_t> next = begin;
  std::vector<std::future<void>> workers;
  for (int64_t i = 0; i < std::min(num_workers, end - begin); ++i) {
    workers.push_back(std::async(std::launch::async, [&] {
      at::set_num_threads(1);
      for (int64_t group = next++; group < end; group = next++) {
        try {
          work(group);
        } catch (...) {
          next = end;  // The other workers stop too.
          throw;
        }
      }
    }));
  }
  for (auto& worker : workers) worker.wait();
  for (auto& worker : workers) worker.get();
}
}  // namespace

void run_groups(MpiEnvironment& mpi, int64_t num_workers, int64_t num_groups,
                const std::function<void(int64_t group)>& work,
                const std::function<void(int64_t num_done)>& report) {
  const int64_t begin = num_groups * mpi.rank() / mpi.world_size();
  const int64_t end = num_groups * (mpi.rank() + 1) / mpi.world_size();
  int64_t next = begin;
  for (int64_t num_done = 0; num_done < num_groups;) {
    const int64_t stop = std::min(end, next + kGroupsPerWorker * num_workers);
    mpi.run_on_all_ranks([&] { run_in_parallel(num_workers, next, stop, work); });
    next = stop;
    std::array<double, 1> done = {static_cast<double>(next - begin)};
    mpi.all_reduce_sum(done);
    num_done = static_cast<int64_t>(done[0]);
    report(num_done);
  }
}
}  // namespace trireme
