#include "launcher/report_table.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/formatted.h"

namespace trireme {
namespace {
// Columns that UTF-8 text takes: its characters, each counted as one.
size_t width_of(std::string_view text) {
  return static_cast<size_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}
}  // namespace

void ReportTable::heading(std::string text) {
  lines_.push_back({Kind::kHeading, std::move(text), {}});
}

void ReportTable::row(std::string name, std::string value) {
  lines_.push_back({Kind::kRow, std::move(name), std::move(value)});
}

void ReportTable::note(std::string text) { lines_.push_back({Kind::kNote, std::move(text), {}}); }

void ReportTable::print(std::ostream& out) const {
  size_t column = 0;
  for (const Line& line : lines_) {
    if (line.kind == Kind::kRow)
      column = std::max(column, std::min<size_t>(width_of(line.name), 48));
  }
  for (const Line& line : lines_) {
    if (line.kind == Kind::kRow) {
      const size_t width = width_of(line.name);
      out << "  " << line.name << std::string(column > width ? column - width : 0, ' ') << "  "
          << line.value << '\n';
    } else {
      out << (line.kind == Kind::kNote ? "  " : "") << line.name << '\n';
    }
  }
}

std::string format_count(int64_t count) {
  std::string digits = std::to_string(count < 0 ? -count : count);
  for (size_t at = digits.size(); at > 3;) {
    at -= 3;
    digits.insert(at, ",");
  }
  return (count < 0 ? "-" : "") + digits;
}

std::string format_bytes(uint64_t num_bytes) {
  constexpr std::array<const char*, 6> kUnits = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(num_bytes);
  size_t unit = 0;
  while (value >= 1024.0 && unit + 1 < kUnits.size()) {
    value /= 1024.0;
    ++unit;
  }
  return formatted(unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
}

std::string format_number(double value) { return formatted("%.6g", unsigned_nan(value)); }

std::string format_duration(double seconds) {
  constexpr double kMinute = 60.0;
  constexpr double kHour = 60 * kMinute;
  constexpr double kDay = 24 * kHour;
  const auto parts = [](double first, const char* unit, double rest, const char* rest_unit) {
    return std::to_string(static_cast<int64_t>(first)) + " " + unit + " " +
           std::to_string(static_cast<int64_t>(rest)) + " " + rest_unit;
  };
  if (seconds < kMinute) return format_number(std::round(10 * seconds) / 10) + " s";
  if (seconds < kHour) return parts(seconds / kMinute, "min", std::fmod(seconds, kMinute), "s");
  if (seconds < kDay) {
    return parts(seconds / kHour, "h", std::fmod(seconds, kHour) / kMinute, "min");
  }
  return parts(seconds / kDay, "days", std::fmod(seconds, kDay) / kHour, "h");
}

std::string format_plural(int64_t count, std::string_view singular) {
  return format_count(count) + " " + std::string(singular) + (count == 1 ? "" : "s");
}

std::string one_line(std::string_view text, size_t max_bytes) {
  std::string result;
  for (const char c : text) {
    if (result.size() >= max_bytes && (static_cast<unsigned char>(c) & 0xc0) != 0x80) {
      return result + "...";
    }
    if (c == '\n') {
      result += "\\n";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      result += '?';
    } else {
      result += c;
    }
  }
  return result;
}
}  // namespace trireme
