#include "dist/backoff.h"

#include <algorithm>
#include <ctime>

#include <sched.h>
#include <sys/prctl.h>

namespace trireme {
namespace {
constexpr std::chrono::microseconds kYieldFor(100);
constexpr int64_t kShortestSleepNs = 10'000;
constexpr int64_t kLongestSleepNs = 200'000;
}  // namespace

Backoff::Paused Backoff::pause() noexcept {
  if (sleep_ns_ == 0) {
    if (std::chrono::steady_clock::now() - begin_ < kYieldFor) {
      sched_yield();
      return Paused::kYielded;
    }
    sleep_ns_ = kShortestSleepNs;
  }
  const timespec duration{.tv_sec = 0, .tv_nsec = static_cast<long>(sleep_ns_)};
  nanosleep(&duration, nullptr);
  // Grows by a quarter, so that a transfer under way is polled often for its first milliseconds.
  sleep_ns_ = std::min(sleep_ns_ + sleep_ns_ / 4, kLongestSleepNs);
  return Paused::kSlept;
}

double Backoff::seconds() const noexcept {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
}

void use_fine_timers() noexcept { prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL); }
}  // namespace trireme
