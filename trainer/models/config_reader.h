#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace trireme {

// Reads the keys of a model's config.json strictly: every accessor throws InputError naming file,
// key and value where the value is not of its kind or out of range. A key that is absent takes the
// given default. Remembers which keys were asked for. Does not own the JSON object.
class ConfigReader {
 public:
  // `json` is an object and outlives the reader.
  ConfigReader(const nlohmann::json& json, std::filesystem::path file);

  [[nodiscard]] bool has(std::string_view key);  // Present and not null.
  [[nodiscard]] int64_t integer(std::string_view key, int64_t fallback, int64_t min, int64_t max);
  [[nodiscard]] double number(std::string_view key, double fallback, double min, double max);
  [[nodiscard]] bool boolean(std::string_view key, bool fallback);
  [[nodiscard]] std::string text(std::string_view key,
                                 std::string_view fallback);  // Null: fallback.
  [[nodiscard]] std::vector<std::string> texts(std::string_view key,
                                               std::vector<std::string> fallback);
  [[nodiscard]] std::vector<int64_t> integers(std::string_view key, std::vector<int64_t> fallback,
                                              int64_t min, int64_t max);
  // One integer for all, or a list of exactly `count`.
  [[nodiscard]] std::vector<int64_t> integer_or_integers(std::string_view key, int64_t fallback,
                                                         size_t count, int64_t min, int64_t max);
  // Marks `key` as one whose value changes nothing in this model.
  void ignore(std::string_view key);
  // The value, or nullptr where the key is absent.
  [[nodiscard]] const nlohmann::json* find(std::string_view key);

  // What each key that was asked for came to, its value or its default, "key = value" a line by
  // key: equal for configs that mean the same.
  [[nodiscard]] std::string resolved() const;

  // Throws for a key that was not asked for, unless it starts with '_' or holds null or false.
  void finish() const;
  // Throws InputError: the model config FILE has KEY = VALUE, and `problem`.
  [[noreturn]] void fail(std::string_view key, const std::string& problem) const;

 private:
  [[nodiscard]] int64_t checked_integer(std::string_view key, const nlohmann::json& value,
                                        int64_t min, int64_t max) const;
  // `value`, which resolved() now has for the key.
  template <class T>
  T noted(std::string_view key, T value);

  const nlohmann::json* json_;
  std::filesystem::path file_;
  std::set<std::string, std::less<>> asked_;
  std::map<std::string, std::string, std::less<>> resolved_;  // As JSON.
};
}  // namespace trireme
