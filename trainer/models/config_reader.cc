#include "trainer/models/config_reader.h"

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace trireme {
namespace {
constexpr size_t kMaxQuotedChars = 80;

std::string quoted(const nlohmann::json& value) {
  std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (text.size() > kMaxQuotedChars) text = text.substr(0, kMaxQuotedChars) + "…";
  return text;
}
}  // namespace

ConfigReader::ConfigReader(const nlohmann::json& json, std::filesystem::path file)
    : json_(&json), file_(std::move(file)) {}

template <class T>
T ConfigReader::noted(std::string_view key, T value) {
  resolved_.insert_or_assign(std::string(key), nlohmann::json(value).dump());
  return value;
}

std::string ConfigReader::resolved() const {
  std::string text;
  for (const auto& [key, value] : resolved_) text += key + " = " + value + "\n";
  return text;
}

// Most keys are noted as what is made of them; here as null where that is all.
const nlohmann::json* ConfigReader::find(std::string_view key) {
  asked_.emplace(key);
  const auto found = json_->find(key);
  const auto* value = found == json_->end() ? nullptr : &*found;
  resolved_.insert_or_assign(std::string(key), value == nullptr ? "null" : quoted(*value));
  return value;
}

bool ConfigReader::has(std::string_view key) {
  const auto* value = find(key);
  return value != nullptr && !value->is_null();
}

void ConfigReader::ignore(std::string_view key) { asked_.emplace(key); }

void ConfigReader::fail(std::string_view key, const std::string& problem) const {
  const auto found = json_->find(key);
  const std::string value =
      found == json_->end() ? "no " + std::string(key) : std::string(key) + " = " + quoted(*found);
  throw InputError("The model config " + file_.string() + " has " + value + ": " + problem +
                   ". Use a model whose config can be represented exactly (docs/weights.md).");
}

int64_t ConfigReader::checked_integer(std::string_view key, const nlohmann::json& value,
                                      int64_t min, int64_t max) const {
  const auto range = "a whole number from " + std::to_string(min) + " to " + std::to_string(max);
  if (!value.is_number_integer()) fail(key, "expected " + range);
  // An unsigned number beyond int64 would wrap.
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    fail(key, "expected " + range);
  }
  const auto number = value.get<int64_t>();
  if (number < min || number > max) fail(key, "expected " + range);
  return number;
}

int64_t ConfigReader::integer(std::string_view key, int64_t fallback, int64_t min, int64_t max) {
  const auto* value = find(key);
  return noted(key, value == nullptr ? fallback : checked_integer(key, *value, min, max));
}

double ConfigReader::number(std::string_view key, double fallback, double min, double max) {
  const auto* value = find(key);
  if (value == nullptr) return noted(key, fallback);
  const double number = value->is_number() ? value->get<double>() : std::nan("");
  if (!(number >= min && number <= max)) {
    fail(key, "expected a number from " + nlohmann::json(min).dump() + " to " +
                  nlohmann::json(max).dump());
  }
  return noted(key, number);
}

bool ConfigReader::boolean(std::string_view key, bool fallback) {
  const auto* value = find(key);
  if (value == nullptr) return noted(key, fallback);
  if (!value->is_boolean()) fail(key, "expected true or false");
  return noted(key, value->get<bool>());
}

std::string ConfigReader::text(std::string_view key, std::string_view fallback) {
  const auto* value = find(key);
  if (value == nullptr || value->is_null()) return noted(key, std::string(fallback));
  if (!value->is_string()) fail(key, "expected a string");
  return noted(key, value->get<std::string>());
}

std::vector<std::string> ConfigReader::texts(std::string_view key,
                                             std::vector<std::string> fallback) {
  const auto* value = find(key);
  if (value == nullptr) return noted(key, std::move(fallback));
  std::vector<std::string> result;
  if (!value->is_array()) fail(key, "expected a list of strings");
  for (const auto& item : *value) {
    if (!item.is_string()) fail(key, "expected a list of strings");
    result.push_back(item.get<std::string>());
  }
  return noted(key, std::move(result));
}

std::vector<int64_t> ConfigReader::integers(std::string_view key, std::vector<int64_t> fallback,
                                            int64_t min, int64_t max) {
  const auto* value = find(key);
  if (value == nullptr) return noted(key, std::move(fallback));
  if (!value->is_array()) fail(key, "expected a list of whole numbers");
  std::vector<int64_t> result;
  for (const auto& item : *value) result.push_back(checked_integer(key, item, min, max));
  return noted(key, std::move(result));
}

std::vector<int64_t> ConfigReader::integer_or_integers(std::string_view key, int64_t fallback,
                                                       size_t count, int64_t min, int64_t max) {
  const auto* value = find(key);
  if (value == nullptr || !value->is_array()) {
    return noted(key, std::vector<int64_t>(count, integer(key, fallback, min, max)));
  }
  auto result = integers(key, {}, min, max);
  if (result.size() != count) {
    fail(key, "expected one number or a list of " + std::to_string(count) + ", one for each block");
  }
  return result;
}

void ConfigReader::finish() const {
  for (const auto& [key, value] : json_->items()) {
    const bool harmless = value.is_null() || (value.is_boolean() && !value.get<bool>());
    if (key.starts_with('_') || harmless || asked_.contains(key)) continue;
    const std::string near = nearest_word(key, asked_);
    fail(key,
         near.empty() ? "the key is not known" : "the key is not known; nearest is '" + near + "'");
  }
}
}  // namespace trireme
