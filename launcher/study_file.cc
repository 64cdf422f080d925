#include "launcher/study_file.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <toml++/toml.h>

#include "core/error.h"
#include "core/files.h"
#include "launcher/config_file.h"
#include "launcher/config_schema.h"
#include "trainer/checkpoint/checkpoint.h"

namespace trireme {
namespace {
constexpr std::array<std::string_view, 14> kStudyKeys = {
    "name",         "dir",       "config", "fork",          "metric",  "target",   "budget_samples",
    "eval_samples", "tolerance", "lr",     "lr_base_batch", "lr_rule", "lr_power", "lr_extend"};
constexpr std::array<std::string_view, 6> kGridKeys = {"batch", "lr_factor",      "seed",
                                                       "ranks", "warmup_samples", "keys"};
constexpr size_t kMaxList = 1000;

// What a checkpoint says of itself and of the run that wrote it.
RunStart read_start(const std::string& folder) {
  RunStart start{.checkpoint = folder, .grow_at = {}, .grow_to = {}};
  const CheckpointState state = open_checkpoint(folder, Verify::kSizes);
  start.step = state.step;
  start.samples = state.samples;
  const Config config = load_config(std::filesystem::path(folder) / "config.toml").config;
  start.seed = config.run.seed;
  start.global_batch = config.batch.global;
  for (size_t i = 0; i < config.batch.grow_at.size(); ++i) {
    if (config.batch.grow_at[i] >= start.samples) break;
    start.grow_at.push_back(config.batch.grow_at[i]);
    start.grow_to.push_back(config.batch.grow_to[i]);
    start.global_batch = config.batch.grow_to[i];
  }
  return start;
}

class StudyReader {
 public:
  explicit StudyReader(const std::filesystem::path& file) : file_(file.string()) {}

  StudyOptions read() {
    toml::table root;
    try {
      root = toml::parse(read_text_file(file_, "study", uint64_t{16} << 20), file_);
    } catch (const InputError& error) {
      throw UsageError(error.what());  // The study is the command's, not the data's.
    } catch (const toml::parse_error& error) {
      throw UsageError(file_ + ":" + std::to_string(error.source().begin.line) +
                       ": not valid TOML: " + std::string(error.description()) + ".");
    }
    for (const auto& [name, node] : root) {
      if (!node.is_table() || (name.str() != "study" && name.str() != "grid")) {
        fail(name.source(), "unknown table '" + std::string(name.str()) +
                                "'; a study has [study], [grid] and [grid.keys].");
      }
    }
    if (const auto* table = root["study"].as_table()) read_study(*table);
    if (const auto* table = root["grid"].as_table()) {
      const toml::node* seed = table->get("seed");
      if (seed != nullptr && !options_.forks.empty()) {
        fail(seed->source(),
             "grid.seed cannot be set with study.fork: a branch keeps its checkpoint's seed. Fork "
             "checkpoints of runs with several seeds.");
      }
      read_grid(*table);
    }
    try {
      options_.validate();
    } catch (const UsageError& error) {
      throw UsageError(file_ + ": " + error.what());
    }
    return std::move(options_);
  }

 private:
  [[noreturn]] void fail(const toml::source_region& where, const std::string& text) const {
    throw UsageError(file_ + ":" + std::to_string(where.begin.line) + ": " + text);
  }

  template <typename Names>
  void check_key(std::string_view table, const toml::key& key, const Names& names) const {
    if (std::ranges::find(names, key.str()) != names.end()) return;
    const std::string nearest = nearest_word(key.str(), names);
    fail(key.source(), "unknown key '" + std::string(table) + "." + std::string(key.str()) + "'" +
                           (nearest.empty() ? "." : "; did you mean '" + nearest + "'?"));
  }

  std::string text(std::string_view key, const toml::node& node) const {
    if (const auto* value = node.as_string()) return value->get();
    fail(node.source(), std::string(key) + " must be a string.");
  }

  double number(std::string_view key, const toml::node& node, double low) const {
    double value = std::nan("");
    if (const auto* real = node.as_floating_point()) value = real->get();
    if (const auto* whole = node.as_integer()) value = static_cast<double>(whole->get());
    if (!std::isfinite(value) || value < low) {
      fail(node.source(),
           std::string(key) + " must be a number of at least " + std::to_string(low) + ".");
    }
    return value;
  }

  double positive(std::string_view key, const toml::node& node) const {
    const double value = number(key, node, 0.0);
    if (value == 0.0) fail(node.source(), std::string(key) + " must be greater than 0.");
    return value;
  }

  int64_t integer(std::string_view key, const toml::node& node, int64_t low) const {
    constexpr int64_t kHigh = int64_t{1} << 40;
    const auto* value = node.as_integer();
    if (value == nullptr || value->get() < low || value->get() > kHigh) {
      fail(node.source(),
           std::string(key) + " must be an integer of at least " + std::to_string(low) + ".");
    }
    return value->get();
  }

  // Lists are without repetition: two equal entries would be the same run.
  template <typename T, typename Read>
  std::vector<T> list(std::string_view key, const toml::node& node, Read read) const {
    const auto* array = node.as_array();
    if (array == nullptr || array->empty() || array->size() > kMaxList) {
      fail(node.source(), std::string(key) + " must be a list of 1 to 1,000 values.");
    }
    std::vector<T> values;
    for (const toml::node& item : *array) {
      values.push_back(read(item));
      if (std::count(values.begin(), values.end(), values.back()) > 1) {
        fail(item.source(), std::string(key) + " holds a value twice.");
      }
    }
    return values;
  }

  std::vector<int64_t> integers(std::string_view key, const toml::node& node, int64_t low) const {
    return list<int64_t>(key, node,
                         [&](const toml::node& item) { return integer(key, item, low); });
  }

  void read_study(const toml::table& table) {
    for (const auto& [key, node] : table) {
      check_key("study", key, kStudyKeys);
      const std::string name = "study." + std::string(key.str());
      const std::string_view leaf = key.str();
      if (leaf == "name") options_.name = text(name, node);
      if (leaf == "dir") options_.dir = text(name, node);
      if (leaf == "config") options_.config = text(name, node);
      if (leaf == "fork") read_forks(name, node);
      if (leaf == "metric") options_.metric = text(name, node);
      if (leaf == "target") options_.target = positive(name, node);
      if (leaf == "budget_samples") options_.budget_samples = integer(name, node, 1);
      if (leaf == "eval_samples") options_.eval_samples = integer(name, node, 1);
      if (leaf == "tolerance") options_.tolerance = number(name, node, 0.0);
      if (leaf == "lr") options_.lr = positive(name, node);
      if (leaf == "lr_base_batch") options_.lr_base_batch = integer(name, node, 1);
      if (leaf == "lr_power") options_.lr_power = number(name, node, 0.0);
      if (leaf == "lr_extend") options_.lr_extend = integer(name, node, 0);
      if (leaf == "lr_rule") options_.lr_rule = rule(name, node);
    }
  }

  void read_forks(std::string_view key, const toml::node& node) {
    for (const auto& folder :
         list<std::string>(key, node, [&](const toml::node& item) { return text(key, item); })) {
      options_.forks.push_back(read_start(folder));
    }
  }

  LrScaling rule(std::string_view key, const toml::node& node) const {
    const std::string name = text(key, node);
    if (name == "linear") return LrScaling::kLinear;
    if (name == "sqrt") return LrScaling::kSqrt;
    if (name == "power") return LrScaling::kPower;
    fail(node.source(), std::string(key) + " must be one of linear, sqrt, power.");
  }

  void read_grid(const toml::table& table) {
    for (const auto& [key, node] : table) {
      check_key("grid", key, kGridKeys);
      const std::string name = "grid." + std::string(key.str());
      const std::string_view leaf = key.str();
      if (leaf == "batch") options_.batch = integers(name, node, 1);
      if (leaf == "seed") options_.seed = integers(name, node, 0);
      if (leaf == "ranks") options_.ranks = integers(name, node, 1);
      if (leaf == "warmup_samples") options_.warmup_samples = integers(name, node, 0);
      if (leaf == "lr_factor") {
        options_.lr_factor =
            list<double>(name, node, [&](const toml::node& item) { return positive(name, item); });
      }
      if (leaf == "keys") read_keys(node);
    }
  }

  void read_keys(const toml::node& node) {
    const auto* table = node.as_table();
    if (table == nullptr) fail(node.source(), "grid.keys must be a table, [grid.keys].");
    static const std::set<std::string_view> kOwn = {"run.name",
                                                    "run.steps",
                                                    "run.epochs",
                                                    "run.seed",
                                                    "run.dir",
                                                    "batch.global",
                                                    "batch.per_rank",
                                                    "optim.lr",
                                                    "optim.lr_base_batch",
                                                    "lr_schedule.warmup_steps",
                                                    "eval.every_steps",
                                                    "checkpoint.every_steps",
                                                    "checkpoint.keep",
                                                    "sample.count"};
    for (const auto& [key, values] : *table) {
      const std::string name(key.str());
      if (kOwn.contains(name)) {
        fail(key.source(), name + " is set by the study itself: use study.* and grid.*.");
      }
      if (find_config_key(name) == nullptr) {
        std::vector<std::string> names;
        for (const ConfigKey& known : config_schema()) names.emplace_back(known.name);
        fail(key.source(), "'" + name + "' is no key of a CONFIG; did you mean '" +
                               nearest_word(name, names) +
                               "'? A key is quoted: \"optim.weight_decay\" = [0.0, 0.1].");
      }
      options_.keys.emplace_back(
          name, list<std::string>("grid.keys", values,
                                  [](const toml::node& item) { return toml_of(item); }));
    }
  }

  static std::string toml_of(const toml::node& node) {
    std::ostringstream out;
    out << toml::toml_formatter{node};
    return out.str();
  }

  std::string file_;
  StudyOptions options_;
};
}  // namespace

StudyOptions load_study(const std::filesystem::path& file) { return StudyReader(file).read(); }
}  // namespace trireme
