#include "trainer/progress.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

#include "core/formatted.h"
#include "core/log.h"
#include "trainer/progress_line.h"
#include "trainer/time_report.h"

namespace trireme {
namespace {
constexpr std::chrono::milliseconds kLineInterval = std::chrono::seconds(10);

std::string rate_text(double rate) {
  return formatted(rate < 10 ? "%.2f/s" : "%.1f/s", rate);
}
}  // namespace

Progress::Progress(std::string what, int64_t total, Voice voice)
    : what_(std::move(what)), total_(total), voice_(voice) {}

void Progress::report(int64_t done) {
  const auto now = Clock::now();
  const bool on_terminal = log::terminal_columns() > 0;
  const bool is_done = done >= total_;
  const auto interval = on_terminal ? std::chrono::milliseconds(200) : kLineInterval;
  if (voice_ == Voice::kSilent || (!is_done && now - last_ < interval)) return;
  last_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double rate = static_cast<double>(done) / std::max(seconds, 1e-3);
  if (is_done) {
    log::set_status("");
    if (now - start_ >= kLineInterval)
      log::info(counted(total_) + " " + what_ + " in " + duration_text(seconds) + ", " +
                rate_text(rate));
    return;
  }
  std::string line = counted(done) + " of " + counted(total_) + " " + what_;
  if (done > 0) {
    line += ", " + rate_text(rate) + ", " +
            duration_text(static_cast<double>(total_ - done) / rate) + " left";
  }
  on_terminal ? log::set_status(line) : log::info(line);
}
}  // namespace trireme
