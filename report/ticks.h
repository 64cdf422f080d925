#pragma once
#include <string>
#include <vector>

#include "report/chart.h"

namespace trireme {

// One axis: which values it spans, where its ticks are, and where a value lies between 0 and 1.
struct AxisLayout {
  ChartAxis::Scale scale = ChartAxis::Scale::kLinear;
  double low = 0.0;
  double high = 1.0;
  struct Tick {
    double value;
    std::string text;
  };
  std::vector<Tick> ticks;  // Within [low, high], ascending.

  [[nodiscard]] double place(
      double value) const;  // 0 at low, 1 at high, beyond where it is beyond.
  [[nodiscard]] bool can_show(double value) const;  // Finite, and above 0 on a logarithmic axis.
};

// Spans [low, high] and what the axis itself demands, with about `num_ticks` round ticks (1,
// 2, 2.5, 5 × 10ⁿ; powers on a logarithmic axis, unless it spans too few). Equal ends are widened.
[[nodiscard]] AxisLayout lay_out_axis(const ChartAxis& axis, double low, double high,
                                      int num_ticks);

// Four significant digits, thousands separated, without trailing zeros; with an exponent below 1e-3
// and from 1e7: "1,250", "0.4521", "3.2e-5".
[[nodiscard]] std::string format_figure(double value);
// "850 ms", "12.3 s", "4m 10s", "2h 05m", "3d 04h".
[[nodiscard]] std::string format_seconds(double seconds);
// As the axis wants it.
[[nodiscard]] std::string format_value(double value, ChartAxis::Format format);
}  // namespace trireme
