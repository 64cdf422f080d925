#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "dist/communicator.h"

namespace trireme::test {

// Passes collectives on to `inner` from a thread of its own, in their order, and writes down when
// each was started and waited for. `may_begin(k)` delays the k-th collective since construction
// until release() was called often enough: a delay that is injected without a clock.
class RecordingCommunicator final : public Communicator {
 public:
  using MayBegin = std::function<int(int collective)>;  // Releases needed before it begins.
  explicit RecordingCommunicator(Communicator& inner, MayBegin releases_needed = {})
      : inner_(inner), releases_needed_(std::move(releases_needed)), thread_([this] { run(); }) {}
  ~RecordingCommunicator() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  RecordingCommunicator(const RecordingCommunicator&) = delete;
  RecordingCommunicator& operator=(const RecordingCommunicator&) = delete;

  [[nodiscard]] int rank() const noexcept override { return inner_.rank(); }
  [[nodiscard]] int world_size() const noexcept override { return inner_.world_size(); }
  [[nodiscard]] std::string_view backend() const noexcept override { return inner_.backend(); }
  [[nodiscard]] std::unique_ptr<CommBuffer> allocate(int64_t n, ScalarType type) override {
    return inner_.allocate(n, type);
  }
  [[nodiscard]] std::unique_ptr<Work> all_reduce(BufferView buffer, ReduceOp op) override {
    return start(buffer, [this, buffer, op] { return inner_.all_reduce(buffer, op); });
  }
  [[nodiscard]] std::unique_ptr<Work> broadcast(BufferView buffer, int root) override {
    return start(buffer, [this, buffer, root] { return inner_.broadcast(buffer, root); });
  }
  [[nodiscard]] std::unique_ptr<Work> all_gather(BufferView in, BufferView out) override {
    return start(in, [this, in, out] { return inner_.all_gather(in, out); });
  }
  [[nodiscard]] std::unique_ptr<Work> reduce_scatter(BufferView in, BufferView out) override {
    return start(in, [this, in, out] { return inner_.reduce_scatter(in, out); });
  }
  [[nodiscard]] std::unique_ptr<Work> all_to_all(BufferView in, BufferView out) override {
    return start(in, [this, in, out] { return inner_.all_to_all(in, out); });
  }
  void abort() noexcept override { inner_.abort(); }

  void release() {
    {
      const std::lock_guard lock(mutex_);
      ++releases_;
    }
    changed_.notify_all();
  }
  void note(const std::string& event) { log_.push_back(event); }
  // Of the caller's thread: "start k", "wait k", and what was noted.
  [[nodiscard]] std::vector<std::string>& log() noexcept { return log_; }
  // What each collective was given to send, in the order of their starts.
  [[nodiscard]] const std::vector<BufferView>& sent() const noexcept { return sent_; }

 private:
  struct Call {
    int number = 0;
    std::function<std::unique_ptr<Work>()> begin;
    bool done = false;
  };
  class Waiter final : public Work {
   public:
    Waiter(RecordingCommunicator& owner, std::shared_ptr<Call> call)
        : owner_(owner), call_(std::move(call)) {}
    void wait() override {
      owner_.log_.push_back("wait " + std::to_string(call_->number - owner_.first_));
      std::unique_lock lock(owner_.mutex_);
      owner_.changed_.wait(lock, [this] { return call_->done; });
    }
    [[nodiscard]] bool is_done() override {
      const std::lock_guard lock(owner_.mutex_);
      return call_->done;
    }

   private:
    RecordingCommunicator& owner_;
    std::shared_ptr<Call> call_;
  };

  std::unique_ptr<Work> start(BufferView in, std::function<std::unique_ptr<Work>()> begin) {
    sent_.push_back(in);
    if (log_.empty()) first_ = next_;  // Numbers count from the last clearing of the log.
    auto call = std::make_shared<Call>(Call{.number = next_++, .begin = std::move(begin)});
    log_.push_back("start " + std::to_string(call->number - first_));
    {
      const std::lock_guard lock(mutex_);
      calls_.push_back(call);
    }
    changed_.notify_all();
    return std::make_unique<Waiter>(*this, call);
  }

  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return stopping_ || !calls_.empty(); });
      if (calls_.empty()) return;
      const auto call = calls_.front();
      calls_.pop_front();
      const int needed = releases_needed_ ? releases_needed_(call->number) : 0;
      changed_.wait(lock, [&] { return stopping_ || releases_ >= needed; });
      lock.unlock();
      call->begin()->wait();
      lock.lock();
      call->done = true;
      changed_.notify_all();
    }
  }

  Communicator& inner_;
  MayBegin releases_needed_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Call>> calls_;
  int releases_ = 0;
  bool stopping_ = false;
  int next_ = 0;
  int first_ = 0;
  std::vector<std::string> log_;
  std::vector<BufferView> sent_;
  std::thread thread_;
};
}  // namespace trireme::test
