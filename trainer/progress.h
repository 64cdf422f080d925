#pragma once
#include <chrono>
#include <cstdint>
#include <string>

namespace trireme {

// Says how far a long piece of work is, with rate and remaining time: in a line that is rewritten
// on a terminal, else logged at most every ten seconds; and at its end how long it took, where that
// was ten seconds at least.
class Progress {
 public:
  enum class Voice { kLogs, kSilent };
  Progress(std::string what, int64_t total, Voice voice);
  void report(int64_t done);

 private:
  using Clock = std::chrono::steady_clock;
  std::string what_;
  int64_t total_;
  Voice voice_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_ = start_;
};
}  // namespace trireme
