#include "dist/communication_thread.h"

#include <atomic>
#include <chrono>
#include <csignal>
#include <exception>
#include <utility>

#include "core/error.h"
#include "dist/backoff.h"

namespace trireme {
namespace {
constexpr double kGraceSeconds = 2.0;  // For work that nobody waits for any more.
}  // namespace

class CommunicationThread::Task {
 public:
  Task(std::function<void()> operation, const char* name, Start when)
      : operation_(std::move(operation)), name_(name), when_(when) {}
  [[nodiscard]] const char* name() const noexcept { return name_; }
  [[nodiscard]] bool is_lazy() const noexcept { return when_ == Start::kLazy; }

  // What it threw, if anything; finish() follows.
  [[nodiscard]] std::exception_ptr run() const noexcept {
    try {
      operation_();
    } catch (...) {
      return std::current_exception();
    }
    return nullptr;
  }
  void finish(std::exception_ptr error) {
    error_ = std::move(error);
    done_.store(1, std::memory_order_release);
    done_.notify_all();
  }
  void wait() {
    done_.wait(0, std::memory_order_acquire);
    if (error_) std::rethrow_exception(error_);
  }
  [[nodiscard]] bool is_done() const noexcept { return done_.load(std::memory_order_acquire) != 0; }

 private:
  std::function<void()> operation_;
  const char* name_;
  Start when_;
  std::exception_ptr error_;
  std::atomic<int> done_{0};
};

class CommunicationThread::TaskWork final : public Work {
 public:
  TaskWork(CommunicationThread& owner, std::shared_ptr<Task> task)
      : owner_(owner), task_(std::move(task)) {}
  ~TaskWork() override {
    Backoff backoff;
    while (!is_done() && backoff.seconds() < kGraceSeconds) backoff.pause();
    if (!task_->is_done()) owner_.abandon();
  }
  TaskWork(const TaskWork&) = delete;
  TaskWork& operator=(const TaskWork&) = delete;
  void wait() override {
    if (task_->is_lazy()) owner_.run_until(*task_);
    task_->wait();
  }
  [[nodiscard]] bool is_done() override {
    if (task_->is_done()) return true;
    if (task_->is_lazy()) owner_.queued_.notify_one();
    return false;
  }

 private:
  CommunicationThread& owner_;
  std::shared_ptr<Task> task_;
};

CommunicationThread::CommunicationThread(std::function<void()> interrupt, TraceTrack trace)
    : interrupt_(std::move(interrupt)), trace_(trace) {
  // Signals are for the thread that started this one.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

CommunicationThread::~CommunicationThread() {
  bool unfinished = false;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    unfinished = busy_ || !tasks_.empty();
  }
  if (unfinished) abandon();
  queued_.notify_all();
  thread_.join();
}

std::unique_ptr<Work> CommunicationThread::start(std::function<void()> operation, const char* name,
                                                 Start when) {
  auto task = std::make_shared<Task>(std::move(operation), name, when);
  {
    const std::lock_guard lock(mutex_);
    if (failure_) std::rethrow_exception(failure_);
    tasks_.push_back(task);
  }
  if (when == Start::kNow) queued_.notify_one();
  return std::make_unique<TaskWork>(*this, std::move(task));
}

void CommunicationThread::abandon() noexcept {
  interrupt_();
  std::deque<std::shared_ptr<Task>> dropped;
  {
    const std::lock_guard lock(mutex_);
    if (!failure_)
      failure_ = std::make_exception_ptr(LostError("This rank gave up its collectives."));
    dropped.swap(tasks_);
  }
  for (const auto& task : dropped) task->finish(failure_);
}

void CommunicationThread::run() {
  use_fine_timers();
  std::unique_lock lock(mutex_);
  for (;;) {
    queued_.wait(lock, [this] { return !busy_ && (stopping_ || !tasks_.empty()); });
    if (tasks_.empty()) return;
    run_oldest(lock);
  }
}

void CommunicationThread::run_until(const Task& task) {
  std::unique_lock lock(mutex_);
  while (!task.is_done() && !busy_ && !tasks_.empty()) run_oldest(lock);
  if (!tasks_.empty()) queued_.notify_one();  // Came meanwhile, when the thread could not start it.
}

// `lock` is held before and after.
void CommunicationThread::run_oldest(std::unique_lock<std::mutex>& lock) {
  const std::shared_ptr<Task> task = tasks_.front();
  tasks_.pop_front();
  if (failure_) return task->finish(failure_);
  busy_ = true;
  lock.unlock();
  const auto begin = std::chrono::steady_clock::now();
  const std::exception_ptr error = task->run();
  trace_.record(task->name(), begin, std::chrono::steady_clock::now());
  lock.lock();
  busy_ = false;
  if (error && !failure_) failure_ = error;  // Before its waiter wakes and starts something more.
  lock.unlock();
  task->finish(error);
  lock.lock();
}
}  // namespace trireme
