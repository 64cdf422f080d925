#include "trainer/in_touch.h"

#include <array>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr auto kPeriod = std::chrono::milliseconds(500);

// Ends the work of a rank because of another's error, or a stop.
struct Abandoned {};

std::function<bool()>& stop_wanted() {
  static std::function<bool()> wanted;  // Of the WorkStopper that lives.
  return wanted;
}

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

WorkStopper::WorkStopper(std::function<bool()> wanted) { stop_wanted() = std::move(wanted); }
WorkStopper::~WorkStopper() { stop_wanted() = nullptr; }

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
  bool stops = false;
  for (bool all_finished = false; !all_finished;) {
    const bool is_finished = worker.wait_for(kPeriod);
    const bool has_failed = is_finished && worker.error() != nullptr;
    const bool wants_stop = stop_wanted() && stop_wanted()();
    std::array<double, 4> state = {is_finished ? 0.0 : 1.0,
                                   static_cast<double>(mine.num_done_.load()),
                                   has_failed ? 1.0 : 0.0, wants_stop ? 1.0 : 0.0};
    mpi.all_reduce_sum(state);
    all_finished = state[0] == 0.0;
    stops = stops || (state[3] > 0 && !all_finished);  // What is finished is not thrown away.
    if (state[2] > 0 || stops) mine.is_abandoned_ = true;
    const auto num_done = static_cast<int64_t>(state[1]);
    if (!report || mine.is_abandoned_ || num_done == num_reported) continue;
    report(num_done);
    num_reported = num_done;
  }
  mpi.run_on_all_ranks([&] {
    if (const auto error = worker.error()) std::rethrow_exception(error);
  });
  if (stops) throw WorkStopped{};
}
}  // namespace trireme
