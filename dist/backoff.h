#pragma once
#include <chrono>
#include <cstdint>

namespace trireme {

// How a thread waits for something that it must poll: it yields for a moment, then sleeps, longer
// and longer up to a fifth of a millisecond, so that ranks that share cores do not burn them.
class Backoff {
 public:
  enum class Paused { kYielded, kSlept };
  Backoff() noexcept : begin_(std::chrono::steady_clock::now()) {}
  Paused pause() noexcept;
  [[nodiscard]] double seconds() const noexcept;  // Since construction.

 private:
  std::chrono::steady_clock::time_point begin_;
  int64_t sleep_ns_ = 0;
};

// Lets this thread's short sleeps be as short as asked (the kernel's default slack is 50 us).
void use_fine_timers() noexcept;
}  // namespace trireme
