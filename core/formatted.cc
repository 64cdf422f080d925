#include "core/formatted.h"

#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <limits>

namespace trireme {

std::string formatted(const char* format, ...) {
  std::va_list values;
  va_start(values, format);
  std::va_list again;
  va_copy(again, values);
  std::string text(static_cast<size_t>(std::vsnprintf(nullptr, 0, format, values)), '\0');
  va_end(values);
  std::vsnprintf(text.data(), text.size() + 1, format, again);
  va_end(again);
  return text;
}

std::string checksum_text(uint64_t checksum) {
  return formatted("%016llx", static_cast<unsigned long long>(checksum));
}

double unsigned_nan(double value) noexcept {
  return std::isnan(value) ? std::numeric_limits<double>::quiet_NaN() : value;
}
}  // namespace trireme
