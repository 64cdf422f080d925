// The values of the schema as text, and the ranges they may take.
#include <charconv>
#include <cmath>
#include <string>

#include "launcher/config_schema.h"

namespace trireme {
namespace {
std::string number_text(double value) {
  char buffer[64];
  const double size = std::abs(value);
  const auto format = size == 0 || (size >= 1e-6 && size < 1e15) ? std::chars_format::fixed
                                                                 : std::chars_format::scientific;
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, format).ptr;
  return {buffer, end};
}

std::string float_text(double value) {
  std::string text = number_text(value);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

std::string toml_quoted(std::string_view text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string result = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      result += "\\u00";
      result += kHex[byte >> 4];
      result += kHex[byte & 15];
    } else {
      result += c;
    }
  }
  return result + '"';
}

struct TomlWriter {
  std::string operator()(bool value) const { return value ? "true" : "false"; }
  std::string operator()(int64_t value) const { return std::to_string(value); }
  std::string operator()(double value) const { return float_text(value); }
  std::string operator()(const std::string& value) const { return toml_quoted(value); }
  std::string operator()(const std::vector<std::string>& value) const {
    std::string text = "[";
    for (const auto& item : value) text += (text.size() > 1 ? ", " : "") + toml_quoted(item);
    return text + "]";
  }
  std::string operator()(const std::array<double, 2>& value) const {
    return "[" + float_text(value[0]) + ", " + float_text(value[1]) + "]";
  }
  std::string operator()(const std::map<std::string, double>& value) const {
    std::string text;
    for (const auto& [key, number] : value) {
      text += (text.empty() ? " " : ", ") + toml_quoted(key) + " = " + float_text(number);
    }
    return "{" + text + (text.empty() ? "}" : " }");
  }
  template <typename Number>
  std::string operator()(const std::vector<Number>& value) const {
    std::string text = "[";
    for (const Number item : value) text += (text.size() > 1 ? ", " : "") + (*this)(item);
    return text + "]";
  }
};
}  // namespace

bool ConfigRange::contains(double value) const noexcept {
  if (!std::isfinite(value)) return false;
  const bool low_out = ends == Ends::kLowOut || ends == Ends::kBothOut;
  const bool high_out = ends == Ends::kHighOut || ends == Ends::kBothOut;
  return (low_out ? value > low : value >= low) && (high_out ? value < high : value <= high);
}

std::string ConfigRange::text() const {
  const bool low_out = ends == Ends::kLowOut || ends == Ends::kBothOut;
  const bool high_out = ends == Ends::kHighOut || ends == Ends::kBothOut;
  if (std::isinf(low) && std::isinf(high)) return "finite";
  if (std::isinf(high)) return (low_out ? "greater than " : "at least ") + number_text(low);
  return (low_out ? "in (" : "in [") + number_text(low) + ", " + number_text(high) +
         (high_out ? ")" : "]");
}

std::string ConfigKey::type_name() const {
  struct Namer {
    std::string operator()(bool) const { return "true or false"; }
    std::string operator()(int64_t) const { return "an integer"; }
    std::string operator()(double) const { return "a number"; }
    std::string operator()(const std::string&) const { return "a string"; }
    std::string operator()(const std::vector<std::string>&) const { return "a list of strings"; }
    std::string operator()(const std::array<double, 2>&) const { return "a list of two numbers"; }
    std::string operator()(const std::vector<int64_t>&) const { return "a list of integers"; }
    std::string operator()(const std::vector<double>&) const { return "a list of numbers"; }
    std::string operator()(const std::map<std::string, double>&) const {
      return "a table of numbers";
    }
  };
  return std::visit(Namer{}, get(Config{}));
}

std::string toml_text(const ConfigValue& value) { return std::visit(TomlWriter{}, value); }
}  // namespace trireme
