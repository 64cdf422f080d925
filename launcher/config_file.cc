#include "launcher/config_file.h"

#include <algorithm>
#include <map>
#include <optional>

#include <toml++/toml.h>

#include "core/error.h"
#include "core/files.h"
#include "launcher/config_rules.h"
#include "launcher/config_schema.h"

namespace trireme {
namespace {
struct Problem {
  uint32_t line;
  std::string text;  // With its place.
};

std::string kind_of(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a float";
    case toml::node_type::boolean:
      return "a boolean";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::table:
      return "a table";
    default:
      return "a date or time";
  }
}

std::optional<double> number_in(const toml::node& node) {
  if (const auto* value = node.as_floating_point()) return value->get();
  if (const auto* value = node.as_integer()) return static_cast<double>(value->get());
  return std::nullopt;
}

// The value of `node` in the type of `like`; nullopt where it has another.
struct Converter {
  const toml::node& node;

  std::optional<ConfigValue> operator()(bool) const {
    if (const auto* value = node.as_boolean()) return value->get();
    return std::nullopt;
  }
  std::optional<ConfigValue> operator()(int64_t) const {
    if (const auto* value = node.as_integer()) return value->get();
    return std::nullopt;
  }
  std::optional<ConfigValue> operator()(double) const {
    if (const auto value = number_in(node)) return *value;
    return std::nullopt;
  }
  std::optional<ConfigValue> operator()(const std::string&) const {
    if (const auto* value = node.as_string()) return value->get();
    return std::nullopt;
  }
  std::optional<ConfigValue> operator()(const std::vector<std::string>&) const {
    const auto* array = node.as_array();
    if (array == nullptr) return std::nullopt;
    std::vector<std::string> list;
    for (const toml::node& item : *array) {
      if (!item.is_string()) return std::nullopt;
      list.push_back(item.as_string()->get());
    }
    return list;
  }
  std::optional<ConfigValue> operator()(const std::array<double, 2>&) const {
    const auto* array = node.as_array();
    if (array == nullptr || array->size() != 2) return std::nullopt;
    const auto first = number_in(*array->get(0));
    const auto second = number_in(*array->get(1));
    if (!first || !second) return std::nullopt;
    return std::array<double, 2>{*first, *second};
  }
  std::optional<ConfigValue> operator()(const std::map<std::string, double>&) const {
    const auto* table = node.as_table();
    if (table == nullptr) return std::nullopt;
    std::map<std::string, double> numbers;
    for (const auto& [key, item] : *table) {
      const auto number = number_in(item);
      if (!number) return std::nullopt;
      numbers.emplace(key.str(), *number);
    }
    return numbers;
  }
  template <typename Number>
  std::optional<ConfigValue> operator()(const std::vector<Number>&) const {
    const auto* array = node.as_array();
    if (array == nullptr) return std::nullopt;
    std::vector<Number> list;
    for (const toml::node& item : *array) {
      const auto number = Converter{item}(Number{});
      if (!number) return std::nullopt;
      list.push_back(std::get<Number>(*number));
    }
    return list;
  }
};

template <typename Number>
bool all_within(const ConfigRange& range, const std::vector<Number>& values) {
  return std::ranges::all_of(
      values, [&](Number value) { return range.contains(static_cast<double>(value)); });
}

bool within(const ConfigRange& range, const ConfigValue& value) {
  if (const auto* list = std::get_if<std::vector<int64_t>>(&value)) return all_within(range, *list);
  if (const auto* list = std::get_if<std::vector<double>>(&value)) return all_within(range, *list);
  if (const auto* number = std::get_if<double>(&value)) return range.contains(*number);
  if (const auto* number = std::get_if<int64_t>(&value)) {
    return range.contains(static_cast<double>(*number));
  }
  if (const auto* pair = std::get_if<std::array<double, 2>>(&value)) {
    return range.contains((*pair)[0]) && range.contains((*pair)[1]);
  }
  if (const auto* numbers = std::get_if<std::map<std::string, double>>(&value)) {
    return std::ranges::all_of(*numbers,
                               [&](const auto& item) { return range.contains(item.second); });
  }
  return true;
}

std::string joined(const std::vector<std::string_view>& words) {
  std::string text;
  for (const auto word : words) text += (text.empty() ? "" : ", ") + std::string(word);
  return text;
}

// The value for `key`, or what is wrong with it.
ConfigValue convert(const ConfigKey& key, const toml::node& node) {
  const auto value = std::visit(Converter{node}, key.get(Config{}));
  const std::string name(key.name);
  if (!value) throw UsageError(name + " must be " + key.type_name() + ", but is " + kind_of(node));
  if (!within(key.range, *value)) {
    throw UsageError(name + " must be " + key.range.text() + ", but is " + toml_text(*value));
  }
  const auto* word = std::get_if<std::string>(&*value);
  if (word != nullptr && !key.choices.empty() &&
      std::ranges::find(key.choices, *word) == key.choices.end()) {
    const std::string nearest = nearest_word(*word, key.choices);
    throw UsageError(name + " is \"" + *word + "\"" +
                     (nearest.empty() ? "" : " (did you mean \"" + nearest + "\"?)") +
                     ", but must be one of " + joined(key.choices));
  }
  return *value;
}

std::string nearest_name(std::string_view word, const std::vector<std::string>& candidates) {
  return *std::ranges::min_element(
      candidates, {}, [&](const auto& candidate) { return edit_distance(word, candidate); });
}

// Names the valid key nearest to `name`: the same leaf in another table comes first.
std::string unknown_key(const std::string& name) {
  std::vector<std::string> names;
  std::vector<std::string> same_leaf;
  const std::string leaf =
      name.substr(name.rfind('.') == std::string::npos ? 0 : name.rfind('.') + 1);
  for (const ConfigKey& key : config_schema()) {
    names.emplace_back(key.name);
    if (key.leaf() == leaf) same_leaf.emplace_back(key.name);
  }
  return "unknown key '" + name + "'; did you mean '" +
         nearest_name(name, same_leaf.empty() ? names : same_leaf) + "'?";
}

std::vector<std::string> table_names() {
  std::vector<std::string> names;
  for (const ConfigKey& key : config_schema()) {
    if (names.empty() || names.back() != key.table()) names.emplace_back(key.table());
  }
  return names;
}

class Reader {
 public:
  explicit Reader(const std::filesystem::path& file) : file_(file.string()) {}

  void read_file() {
    toml::table root;
    try {
      root = toml::parse(read_text_file(file_, "configuration", uint64_t{16} << 20), file_);
    } catch (const InputError& error) {
      throw UsageError(error.what());  // The configuration is the command's, not the data's.
    } catch (const toml::parse_error& error) {
      throw UsageError(file_ + ":" + std::to_string(error.source().begin.line) +
                       ": not valid TOML: " + std::string(error.description()) + ".");
    }
    for (const auto& [name, node] : root) read_table(std::string(name.str()), name.source(), node);
    if (problems_.empty()) return;
    const auto first = std::ranges::min_element(problems_, {}, &Problem::line);
    const size_t others = problems_.size() - 1;
    throw UsageError(first->text + (others == 0   ? ""
                                    : others == 1 ? " (One more line of this file is wrong.)"
                                                  : " (" + std::to_string(others) +
                                                        " more lines of this file are wrong.)"));
  }

  void apply_override(const std::string& text) {
    const std::string place = "--set " + text;
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      throw UsageError(place + ": expected key.path=VALUE, for example --set optim.lr=2e-4.");
    }
    const std::string name = trimmed(text.substr(0, equals));
    const ConfigKey* key = find_config_key(name);
    if (key == nullptr) throw UsageError(place + ": " + unknown_key(name));
    try {
      const toml::table parsed = parse_override(*key, text.substr(equals + 1));
      assign(*key, parsed.begin()->second, "--set " + name);
    } catch (const UsageError& error) {
      throw UsageError(place + ": " + error.what() + ".");
    }
  }

  LoadedConfig finish(const std::string& run_dir) {
    settle_defaults();
    if (!run_dir.empty()) loaded_.config.run.dir = run_dir;
    check_config_rules(loaded_.config, file_, [this](std::string_view key) {
      const auto found = places_.find(std::string(key));
      return found == places_.end() ? std::string() : found->second;
    });
    if (loaded_.config.run.dir.empty()) loaded_.config.run.dir = "runs/" + loaded_.config.run.name;
    loaded_.file = file_;
    for (const auto& [key, place] : places_) loaded_.keys_set.push_back(key);
    return std::move(loaded_);
  }

 private:
  // Defaults that give way to another key.
  void settle_defaults() {
    Config& config = loaded_.config;
    const auto is_given = [this](const char* key) { return places_.contains(key); };
    const bool other_warmup =
        config.lr_schedule.warmup_samples > 0 || config.lr_schedule.warmup_fraction > 0;
    if (other_warmup && !is_given("lr_schedule.warmup_steps")) config.lr_schedule.warmup_steps = 0;
    if (!config.noise.trained_betas.empty() && !is_given("noise.timesteps")) {
      config.noise.timesteps = static_cast<int64_t>(config.noise.trained_betas.size());
    }
  }

  void read_table(const std::string& table, const toml::source_region& where,
                  const toml::node& node) {
    const auto tables = table_names();
    if (std::ranges::find(tables, table) == tables.end()) {
      const bool is_table = node.is_table() || node.is_array_of_tables();
      report(where, is_table ? "unknown table '" + table + "'; did you mean '" +
                                   nearest_name(table, tables) + "'?"
                             : unknown_key(table));
      return;
    }
    if (!node.is_table()) {
      report(where,
             "'" + table + "' must be a table, [" + table + "], but is " + kind_of(node) + ".");
      return;
    }
    for (const auto& [leaf, value] : *node.as_table()) {
      const std::string name = table + "." + std::string(leaf.str());
      const ConfigKey* key = find_config_key(name);
      if (key == nullptr) {
        report(leaf.source(), unknown_key(name));
        continue;
      }
      try {
        assign(*key, value, place_of(leaf.source()));
      } catch (const UsageError& error) {
        report(leaf.source(), std::string(error.what()) + ".");
      }
    }
  }

  void assign(const ConfigKey& key, const toml::node& node, const std::string& place) {
    key.set(loaded_.config, convert(key, node));
    places_[std::string(key.name)] = place;
  }

  // A table of one key: VALUE as TOML, or as a bare string where the key takes strings.
  static toml::table parse_override(const ConfigKey& key, const std::string& value) {
    const ConfigValue like = key.get(Config{});
    const bool takes_list = std::holds_alternative<std::vector<std::string>>(like);
    const bool takes_text = std::holds_alternative<std::string>(like) || takes_list;
    try {
      toml::table parsed = toml::parse("value = " + value);
      const bool one_value = parsed.size() == 1;
      const bool fits = one_value && (takes_list ? parsed.begin()->second.is_array()
                                                 : parsed.begin()->second.is_string());
      if (one_value && (fits || !takes_text)) return parsed;
    } catch (const toml::parse_error&) {
      // Then it is bare text, or nothing.
    }
    if (!takes_text) {
      throw UsageError(std::string(key.name) + " must be " + key.type_name() + ", but '" + value +
                       "' is not");
    }
    const std::string quoted = toml_text(ConfigValue(value));
    try {
      return toml::parse("value = " + (takes_list ? "[" + quoted + "]" : quoted));
    } catch (const toml::parse_error&) {
      throw UsageError(std::string(key.name) + " must be UTF-8 text");
    }
  }

  static std::string trimmed(const std::string& text) {
    const size_t first = text.find_first_not_of(" \t");
    if (first == std::string::npos) return {};
    return text.substr(first, text.find_last_not_of(" \t") - first + 1);
  }

  [[nodiscard]] std::string place_of(const toml::source_region& where) const {
    return file_ + ":" + std::to_string(where.begin.line);
  }

  void report(const toml::source_region& where, const std::string& text) {
    problems_.push_back({where.begin.line, place_of(where) + ": " + text});
  }

  std::string file_;
  LoadedConfig loaded_;
  std::map<std::string, std::string> places_;
  std::vector<Problem> problems_;
};
}  // namespace

bool LoadedConfig::is_set(std::string_view key) const {
  return std::ranges::find(keys_set, key) != keys_set.end();
}

LoadedConfig load_config(const std::filesystem::path& file,
                         const std::vector<std::string>& overrides, const std::string& run_dir) {
  Reader reader(file);
  reader.read_file();
  for (const auto& text : overrides) reader.apply_override(text);
  return reader.finish(run_dir);
}
}  // namespace trireme
