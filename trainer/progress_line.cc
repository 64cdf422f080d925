#include "trainer/progress_line.h"

#include <algorithm>
#include <array>
#include <utility>

#include "core/formatted.h"
#include "trainer/time_report.h"

namespace trireme {
namespace {
std::string bar(double share, size_t width) {
  const auto filled = static_cast<size_t>(std::clamp(share, 0.0, 1.0) * static_cast<double>(width));
  std::string text = "[" + std::string(filled, '=') + std::string(width - filled, ' ') + "]";
  if (filled > 0 && filled < width) text[filled] = '>';
  return text;
}
}  // namespace

std::string progress_line(const ProgressState& state, int columns) {
  const double share =
      static_cast<double>(state.step) / static_cast<double>(std::max<int64_t>(state.num_steps, 1));
  // In the order of the line, with how gladly each is given up (0: never).
  std::array<std::pair<int, std::string>, 9> fields = {{
      {0, "step " + counted(state.step) + "/" + counted(state.num_steps)},
      {5, formatted("%.0f%%", 100.0 * share)},
      {0, formatted("loss %.4f", state.loss)},
      {3, formatted("lr %.2e", state.lr)},
      {4, formatted("norm %.3g", state.grad_norm)},
      {2, formatted(state.images_per_second < 1000 ? "%.1f img/s" : "%.0f img/s",
                    state.images_per_second)},
      {6, formatted("data %.1f%%", 100.0 * state.data_share)},
      {7, formatted("comm %.1f%%", 100.0 * state.comm_share)},
      {1, "ETA " + duration_text(state.seconds_left)},
  }};
  const auto join = [&] {
    std::string line;
    for (const auto& [rank, text] : fields) {
      if (!text.empty()) line += (line.empty() ? "" : "  ") + text;
    }
    return line;
  };
  std::string line = join();
  const auto room = static_cast<size_t>(std::max(0, columns));
  for (int rank = 7; rank >= 1 && line.size() > room; --rank) {
    for (auto& [field_rank, text] : fields) {
      if (field_rank == rank) text.clear();
    }
    line = join();
  }
  constexpr size_t kBarMin = 10;
  constexpr size_t kBarMax = 30;
  if (line.size() + kBarMin + 4 <= room) {
    line = bar(share, std::min(kBarMax, room - line.size() - 4)) + "  " + line;
  }
  return line.substr(0, room);
}

std::string counted(int64_t count) {
  const std::string digits = std::to_string(count);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}
}  // namespace trireme
