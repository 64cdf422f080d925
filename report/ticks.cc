#include "report/ticks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

#include "core/formatted.h"

namespace trireme {
namespace {
double base_of(ChartAxis::Scale scale) { return scale == ChartAxis::Scale::kLog2 ? 2.0 : 10.0; }

// The round step (1, 2, 2.5, 5 × 10ⁿ) that gives at most about `num_ticks` of them.
double round_step(double span, int num_ticks, ChartAxis::Format format) {
  const bool is_count = format == ChartAxis::Format::kCount;
  const double raw = std::max(span / std::max(1, num_ticks), is_count ? 1.0 : 0.0);
  if (format == ChartAxis::Format::kSeconds && raw > 1.0) {
    constexpr std::array<double, 14> kSteps = {2,   5,   10,  15,   30,   60,   120,
                                               300, 600, 900, 1800, 3600, 7200, 21600};
    for (const double step : kSteps) {
      if (step >= raw) return step;
    }
    return 86400.0 * std::max(1.0, std::ceil(raw / 86400.0));
  }
  const double unit = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 2.5, 5.0}) {
    if (is_count && unit < 10.0 && factor == 2.5) continue;
    if (factor * unit >= raw * (1.0 - 1e-9)) return factor * unit;
  }
  return 10.0 * unit;
}

// "4.00e-04" as people write it: "4e-4".
std::string tidy_exponent(std::string_view text) {
  const size_t e = text.find('e');
  std::string digits(text.substr(0, e));
  digits.erase(digits.find_last_not_of('0') + 1);
  if (digits.back() == '.') digits.pop_back();
  return digits + "e" + std::to_string(std::stoi(std::string(text.substr(e + 1))));
}

std::string format_tick(double value, double step, ChartAxis::Format format) {
  if (std::abs(value) < step * 1e-6) value = 0.0;
  return format_value(value, format);
}

// Multiples of `step`.
void add_even_ticks(AxisLayout& layout, const ChartAxis& axis, double step) {
  const double slack = step * 1e-6;
  const auto first = static_cast<int64_t>(std::ceil((layout.low - slack) / step));
  for (int64_t i = first; i < first + 100; ++i) {
    const double value = static_cast<double>(i) * step;
    if (value > layout.high + slack) break;
    layout.ticks.push_back({value, format_tick(value, step, axis.format)});
  }
}

void lay_out_linear(AxisLayout& layout, const ChartAxis& axis, int num_ticks) {
  const double step = round_step(layout.high - layout.low, num_ticks, axis.format);
  // The ends grow to the next half step, so that a curve does not touch the frame.
  if (!axis.low) layout.low = std::floor(layout.low / step * 2.0 + 1e-9) * step / 2.0;
  if (!axis.high) layout.high = std::ceil(layout.high / step * 2.0 - 1e-9) * step / 2.0;
  add_even_ticks(layout, axis, step);
}

void lay_out_log(AxisLayout& layout, const ChartAxis& axis, int num_ticks) {
  const double base = base_of(axis.scale);
  const double low = std::log(layout.low) / std::log(base);
  const double high = std::log(layout.high) / std::log(base);
  const double pad = 0.04 * (high - low);
  if (!axis.low) layout.low = std::pow(base, low - pad);
  if (!axis.high) layout.high = std::pow(base, high + pad);
  const auto every =
      std::max<int64_t>(1, static_cast<int64_t>(std::ceil((high - low) / std::max(1, num_ticks))));
  const auto add = [&](double value) {
    if (value < layout.low * (1 - 1e-9) || value > layout.high * (1 + 1e-9)) return;
    layout.ticks.push_back({value, format_value(value, axis.format)});
  };
  const bool few = axis.scale == ChartAxis::Scale::kLog10 && high - low < 2.5;
  for (auto power = static_cast<int64_t>(std::floor(low)) - 1;
       power <= static_cast<int64_t>(std::ceil(high)) + 1; ++power) {
    if (power % every != 0) continue;
    const double value = std::pow(base, static_cast<double>(power));
    add(value);
    if (few) {
      for (const double factor : {2.0, 5.0}) add(factor * value);
    }
  }
  // A short axis may hold too few of these to read a value from.
  if (layout.ticks.size() > (few ? 2 : 1)) return;
  layout.ticks.clear();
  add_even_ticks(layout, axis, round_step(layout.high - layout.low, num_ticks, axis.format));
}
}  // namespace

double AxisLayout::place(double value) const {
  if (scale == ChartAxis::Scale::kLinear) return (value - low) / (high - low);
  return std::log(value / low) / std::log(high / low);
}

bool AxisLayout::can_show(double value) const {
  return std::isfinite(value) && (scale == ChartAxis::Scale::kLinear || value > 0.0);
}

AxisLayout lay_out_axis(const ChartAxis& axis, double low, double high, int num_ticks) {
  AxisLayout layout{.scale = axis.scale,
                    .low = axis.low.value_or(low),
                    .high = axis.high.value_or(high),
                    .ticks = {}};
  const bool is_linear = axis.scale == ChartAxis::Scale::kLinear;
  if (!is_linear) layout.low = std::max(layout.low, 1e-300);
  // Values that differ by rounding alone count as equal.
  if (!(layout.high - layout.low > 1e-9 * std::abs(layout.high))) {
    const double middle = layout.low;
    const bool is_count = axis.format == ChartAxis::Format::kCount;
    const double half = is_count ? 1.0 : 0.1 * std::abs(middle);
    layout.low = is_linear ? middle - half : middle / base_of(axis.scale);
    if (is_count) layout.low = std::max(layout.low, 0.0);
    layout.high = is_linear ? middle + half : middle * base_of(axis.scale);
    if (middle == 0.0) layout.high = 1.0;  // Nothing but zero: mostly a share or a count.
  }
  is_linear ? lay_out_linear(layout, axis, num_ticks) : lay_out_log(layout, axis, num_ticks);
  return layout;
}

std::string format_figure(double value) {
  if (!std::isfinite(value)) return std::isnan(value) ? "–" : (value > 0 ? "∞" : "−∞");
  const double size = std::abs(value);
  if (size != 0 && (size < 1e-3 || size >= 1e7)) return tidy_exponent(formatted("%.2e", value));
  if (size >= 1000) {
    std::string digits = formatted("%.0f", value);
    const size_t first = digits.front() == '-' ? 1 : 0;
    for (size_t at = digits.size(); at > first + 3;) digits.insert(at -= 3, ",");
    return digits;
  }
  return formatted("%.4g", value);
}

std::string format_seconds(double seconds) {
  if (!std::isfinite(seconds)) return "–";
  const auto whole = static_cast<long long>(std::llround(std::min(seconds, 1e15)));
  if (seconds == 0) return "0 s";
  if (seconds < 1e-3) return formatted("%.3g µs", seconds * 1e6);
  if (seconds < 1) return formatted("%.3g ms", seconds * 1e3);
  if (whole < 60) return formatted("%.3g s", seconds);
  if (whole < 3600) {
    return formatted(whole % 60 == 0 ? "%lldm" : "%lldm %02llds", whole / 60, whole % 60);
  }
  if (whole < 86400) {
    return formatted(whole / 60 % 60 == 0 ? "%lldh" : "%lldh %02lldm", whole / 3600,
                     whole / 60 % 60);
  }
  return formatted("%lldd %02lldh", whole / 86400, whole / 3600 % 24);
}

std::string format_value(double value, ChartAxis::Format format) {
  switch (format) {
    case ChartAxis::Format::kNumber:
    case ChartAxis::Format::kCount:
      return format_figure(value);
    case ChartAxis::Format::kPercent:
      return format_figure(100.0 * value) + " %";
    case ChartAxis::Format::kSeconds:
      return format_seconds(value);
  }
  return {};
}
}  // namespace trireme
