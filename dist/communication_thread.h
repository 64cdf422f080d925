#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "core/tracer.h"
#include "dist/work.h"

namespace trireme {

// Executes collectives one after the other on a thread of its own, so that they overlap with
// compute. Internal to dist/. After the first operation that throws, all later ones fail with the
// same error.
class CommunicationThread {
 public:
  // Whether the thread is woken for an operation. kLazy is for one that takes less time than waking
  // a thread: whoever waits for it runs it, with all that was queued before, unless the thread came
  // by earlier.
  enum class Start { kNow, kLazy };

  // `interrupt` makes an operation in progress throw soon; called when its result is given up.
  // `trace` is the thread's track.
  explicit CommunicationThread(std::function<void()> interrupt, TraceTrack trace = {});
  ~CommunicationThread();  // Interrupts what is unfinished, and joins.
  CommunicationThread(const CommunicationThread&) = delete;
  CommunicationThread& operator=(const CommunicationThread&) = delete;

  // Queues `operation`, called `name` in traces. Destroying its Work without wait() waits a moment,
  // then interrupts it.
  [[nodiscard]] std::unique_ptr<Work> start(std::function<void()> operation,
                                            const char* name = "collective",
                                            Start when = Start::kNow);
  void abandon() noexcept;  // Interrupts, and makes everything queued fail.

 private:
  class Task;
  class TaskWork;
  void run();
  void run_oldest(std::unique_lock<std::mutex>& lock);
  void run_until(const Task& task);

  std::function<void()> interrupt_;
  TraceTrack trace_;
  std::mutex mutex_;
  std::condition_variable queued_;
  std::deque<std::shared_ptr<Task>> tasks_;
  std::exception_ptr failure_;  // Of the thread; guarded by mutex_.
  bool stopping_ = false;
  bool busy_ = false;  // An operation is in progress, on whichever thread.
  std::thread thread_;
};

// Work that was done when it was issued.
class FinishedWork final : public Work {
 public:
  void wait() override {}
  [[nodiscard]] bool is_done() override { return true; }
};
}  // namespace trireme
