#include "dist/shm_group.h"

#include <cerrno>
#include <chrono>
#include <cmath>
#include <ctime>
#include <limits>
#include <new>
#include <thread>

#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/error.h"

namespace trireme {
namespace {
constexpr int64_t kSpinNs = 20'000;
constexpr long kParkNs = 100'000'000;  // Then it looks whether the others still live.

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void pause_cpu() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Shared between processes, so not the private variant.
void park(std::atomic<uint32_t>& word, uint32_t while_value) noexcept {
  const timespec timeout{.tv_sec = 0, .tv_nsec = kParkNs};
  syscall(SYS_futex, &word, FUTEX_WAIT, while_value, &timeout, nullptr, 0);
}

void wake_all(std::atomic<uint32_t>& word) noexcept {
  syscall(SYS_futex, &word, FUTEX_WAKE, std::numeric_limits<int>::max(), nullptr, nullptr, 0);
}

bool reached(uint32_t value, uint32_t target) noexcept {
  return static_cast<int32_t>(value - target) >= 0;
}
}  // namespace

// Written by its own rank only, but for `sleepers`.
struct ShmGroup::Slot {
  alignas(64) std::atomic<uint32_t> entered;  // Barriers that this rank has entered.
  std::atomic<uint32_t> gave_up;
  std::atomic<int64_t> process;
  alignas(64) std::atomic<uint32_t> sleepers;  // Ranks parked on `entered`.
  alignas(64) ShmRequest request;
};

bool ShmRequest::matches(const ShmRequest& other) const noexcept {
  return kind == other.kind && op == other.op && type == other.type && root == other.root &&
         num_elements == other.num_elements;
}

std::string ShmRequest::text() const {
  constexpr const char* kNames[] = {"all_reduce", "broadcast", "all_gather", "reduce_scatter",
                                    "all_to_all"};
  return std::string(kNames[static_cast<int>(kind)]) + " of " + std::to_string(num_elements) +
         " elements of type " + std::to_string(type) + " (op " + std::to_string(op) + ", root " +
         std::to_string(root) + ")";
}

ShmGroup::ShmGroup(std::unique_ptr<ShmSegment> slots, int rank, int num_ranks,
                   double timeout_seconds)
    : slots_(std::move(slots)),
      rank_(rank),
      num_ranks_(num_ranks),
      timeout_seconds_(timeout_seconds) {
  static_assert(sizeof(Slot) <= kSlotBytes);
  static_assert(std::atomic<uint32_t>::is_always_lock_free &&
                std::atomic<int64_t>::is_always_lock_free);
  auto* mine = new (slots_->part(rank)) Slot();
  mine->process.store(getpid());
  // A rank may be confined to fewer cores than the node has; it then must not spin.
  if (std::thread::hardware_concurrency() >= static_cast<unsigned>(num_ranks)) spin_ns_ = kSpinNs;
}

ShmGroup::Slot& ShmGroup::slot(int rank) const noexcept {
  return *std::launder(reinterpret_cast<Slot*>(slots_->part(rank)));
}

void ShmGroup::publish(const ShmRequest& request) noexcept { slot(rank_).request = request; }
const ShmRequest& ShmGroup::request_of(int rank) const noexcept { return slot(rank).request; }

void ShmGroup::barrier(std::string_view what) {
  ++entered_;
  Slot& mine = slot(rank_);
  // Sequentially consistent against wait_for(): either it sees the new value or this sees the
  // sleeper.
  mine.entered.store(entered_, std::memory_order_seq_cst);
  if (mine.sleepers.load(std::memory_order_seq_cst) > 0) wake_all(mine.entered);
  const double begin = now_seconds();
  for (int other = 0; other < num_ranks_; ++other) {
    if (other != rank_) wait_for(other, entered_, what, begin);
  }
}

void ShmGroup::wait_for(int rank, uint32_t target, std::string_view what, double begin) {
  Slot& theirs = slot(rank);
  if (reached(theirs.entered.load(std::memory_order_acquire), target)) return;
  const auto spin_until = std::chrono::steady_clock::now() + std::chrono::nanoseconds(spin_ns_);
  while (spin_ns_ > 0 && std::chrono::steady_clock::now() < spin_until) {
    for (int i = 0; i < 32; ++i) {
      if (reached(theirs.entered.load(std::memory_order_acquire), target)) return;
      pause_cpu();
    }
  }
  theirs.sleepers.fetch_add(1, std::memory_order_seq_cst);
  try {
    for (;;) {
      const uint32_t value = theirs.entered.load(std::memory_order_seq_cst);
      if (reached(value, target)) break;
      park(theirs.entered, value);
      check_alive(rank, target, what, now_seconds() - begin);
    }
  } catch (...) {
    theirs.sleepers.fetch_sub(1);
    throw;
  }
  theirs.sleepers.fetch_sub(1, std::memory_order_seq_cst);
}

void ShmGroup::check_alive(int rank, uint32_t target, std::string_view what,
                           double waited_seconds) {
  if (stopped_.load()) throw LostError("This rank gave up its collectives.");
  for (int other = 0; other < num_ranks_; ++other) {
    if (slot(other).gave_up.load() != 0) {
      throw LostError("Rank " + std::to_string(other) + " failed and left the others.");
    }
  }
  Slot& theirs = slot(rank);
  if (reached(theirs.entered.load(), target)) return;
  const auto process = static_cast<pid_t>(theirs.process.load());
  const bool is_gone = kill(process, 0) != 0 && errno == ESRCH;
  if (!is_gone && waited_seconds < timeout_seconds_) return;
  throw LostError(
      "Rank " + std::to_string(rank) + " (process " + std::to_string(process) + ") is " +
      (is_gone ? "gone" : "late") + ": rank " + std::to_string(rank_) + " waited " +
      std::to_string(std::llround(waited_seconds)) + " s for it in " + std::string(what) +
      ". Look at what happened to that process; then start the run again, it goes on from its "
      "newest checkpoint, at any number of ranks.");
}

void ShmGroup::give_up() noexcept {
  stop();
  slot(rank_).gave_up.store(1);
  for (int rank = 0; rank < num_ranks_; ++rank) wake_all(slot(rank).entered);
}
}  // namespace trireme
