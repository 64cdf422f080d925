#include "trainer/in_touch.h"

#include <array>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr auto kPeriod = std::chrono::milliseconds(500);

// Ends the work of a rank because of another's error.
struct Abandoned {};

// A thread with an outcome that others can wait for with a deadline.
class Worker {
 public:
  explicit Worker(const std::function<void()>& work)
      : thread_([this, work] {
          std::exception_ptr error;
          try {
            work();
          } catch (const Abandoned&) {
            // The failing rank reports.
          } catch (...) {
            error = std::current_exception();
          }
          const std::lock_guard lock(mutex_);
          error_ = error;
          is_finished_ = true;
          finished_.notify_all();
        }) {}

  bool wait_for(std::chrono::milliseconds time) {
    std::unique_lock lock(mutex_);
    return finished_.wait_for(lock, time, [this] { return is_finished_; });
  }
  std::exception_ptr error() {
    const std::lock_guard lock(mutex_);
    return error_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable finished_;
  bool is_finished_ = false;
  std::exception_ptr error_;
  std::jthread thread_;  // Last: it uses the others.
};
}  // namespace

void WorkReport::advance(int64_t count) {
  num_done_ += count;
  if (is_abandoned_) throw Abandoned{};
}

void run_in_touch(MpiEnvironment& mpi, const std::function<void(WorkReport&)>& work,
                  const std::function<void(int64_t num_done)>& report) {
  WorkReport mine;
  const int num_threads = at::get_num_threads();
  Worker worker([&] {
    at::set_num_threads(num_threads);  // OpenMP counts them by thread.
    work(mine);
  });
  int64_t num_reported = -1;
  for (bool all_finished = false; !all_finished;) {
    const bool is_finished = worker.wait_for(kPeriod);
    const bool has_failed = is_finished && worker.error() != nullptr;
    std::array<double, 3> state = {is_finished ? 0.0 : 1.0,
                                   static_cast<double>(mine.num_done_.load()),
                                   has_failed ? 1.0 : 0.0};
    mpi.all_reduce_sum(state);
    all_finished = state[0] == 0.0;
    if (state[2] > 0) mine.is_abandoned_ = true;
    const auto num_done = static_cast<int64_t>(state[1]);
    if (!report || state[2] > 0 || num_done == num_reported) continue;
    report(num_done);
    num_reported = num_done;
  }
  mpi.run_on_all_ranks([&] {
    if (const auto error = worker.error()) std::rethrow_exception(error);
  });
}
}  // namespace trireme
