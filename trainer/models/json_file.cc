#include "trainer/models/json_file.h"

#include <cstddef>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"

namespace trireme {

nlohmann::json parse_json_object(std::string_view text, const std::filesystem::path& file,
                                 std::string_view what, int max_depth) {
  std::vector<std::set<std::string>> keys;  // Of the objects that are open.
  std::string duplicate;
  bool too_deep = false;
  using Json = nlohmann::json;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > max_depth) {
      too_deep = true;
      return false;  // What is nested deeper is thrown away as it comes.
    }
    const auto level = static_cast<size_t>(depth);
    if (event == Json::parse_event_t::object_start) {
      keys.resize(level + 1);
      keys.emplace_back();
    } else if (event == Json::parse_event_t::key) {
      keys.resize(level + 1);
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys[level].insert(key).second && duplicate.empty()) duplicate = key;
    }
    return true;
  };
  const auto fail = [&](const std::string& problem) {
    throw InputError("The " + std::string(what) + " of " + file.string() + " " + problem +
                     "; the file is damaged or not of this kind. Fetch or write it again.");
  };
  Json value = Json::parse(text.begin(), text.end(), watch, false);
  if (too_deep) fail("is nested deeper than " + std::to_string(max_depth) + " levels");
  if (value.is_discarded() || !value.is_object()) fail("is not a JSON object");
  if (!duplicate.empty()) fail("has the key '" + duplicate + "' twice");
  return value;
}

nlohmann::json read_json_object(const std::filesystem::path& file, std::string_view what) {
  return parse_json_object(read_text_file(file, what), file, "text");
}
}  // namespace trireme
