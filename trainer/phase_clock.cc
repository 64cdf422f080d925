#include "trainer/phase_clock.h"

namespace trireme {

void PhaseClock::add(Phase phase, Clock::time_point begin, Clock::time_point end) {
  const auto index = static_cast<size_t>(phase);
  seconds_[index] += std::chrono::duration<double>(end - begin).count();
  trace_.record(std::string(kPhaseNames[index]), begin, end);
}
}  // namespace trireme
