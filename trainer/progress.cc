#include "trainer/progress.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

#include "core/formatted.h"
#include "core/log.h"

namespace trireme {

Progress::Progress(std::string what, int64_t total, Voice voice)
    : what_(std::move(what)), total_(total), voice_(voice) {}

void Progress::report(int64_t done) {
  const auto now = Clock::now();
  done = std::min(done, total_);
  const bool on_terminal = log::terminal_columns() > 0;
  const auto interval = on_terminal ? std::chrono::milliseconds(200) : std::chrono::seconds(10);
  if (voice_ == Voice::kSilent || (done < total_ && now - last_ < interval)) return;
  last_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double rate = static_cast<double>(done) / std::max(seconds, 1e-3);
  const std::string line =
      formatted("%lld of %lld %s, %.1f/s, %.0f s left", static_cast<long long>(done),
                static_cast<long long>(total_), what_.c_str(), rate,
                static_cast<double>(total_ - done) / std::max(rate, 1e-9));
  if (done < total_ && on_terminal) {
    log::set_status(line);
    return;
  }
  if (on_terminal) log::set_status("");
  log::info(line);
}
}  // namespace trireme
