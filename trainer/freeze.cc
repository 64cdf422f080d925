#include "trainer/freeze.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <functional>
#include <regex>
#include <string_view>

#include "core/error.h"

namespace trireme {
namespace {
bool starts_with_any(std::string_view name, std::initializer_list<std::string_view> prefixes) {
  return std::ranges::any_of(prefixes, [&](auto prefix) { return name.starts_with(prefix); });
}

bool is_attention(std::string_view name) {
  return name.find(".attn1.") != name.npos || name.find(".attn2.") != name.npos;
}

struct Group {
  std::string_view name;
  bool (*holds)(std::string_view parameter);
};

constexpr std::array<Group, 4> kGroups = {{
    {"encoder",
     [](std::string_view name) {
       return starts_with_any(name, {"conv_in.", "time_embedding.", "class_embedding.",
                                     "add_embedding.", "down_blocks."});
     }},
    {"decoder",
     [](std::string_view name) {
       return starts_with_any(name, {"up_blocks.", "conv_norm_out.", "conv_out."});
     }},
    {"all_but_attention", [](std::string_view name) { return !is_attention(name); }},
    {"all_but_cross_attention",
     [](std::string_view name) { return name.find(".attn2.") == name.npos; }},
}};

// The number in "down_blocks.3.…" after the prefix "down_blocks.", or -1.
int64_t index_after(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return -1;
  int64_t index = -1;
  std::from_chars(name.data() + prefix.size(), name.data() + name.size(), index);
  return index;
}

// Blocks in the order of the forward pass: down blocks, the middle, up blocks.
class BlockOrder {
 public:
  explicit BlockOrder(const std::vector<std::string>& names) {
    for (const auto& name : names) {
      num_down_ = std::max(num_down_, index_after(name, "down_blocks.") + 1);
      num_up_ = std::max(num_up_, index_after(name, "up_blocks.") + 1);
    }
  }
  [[nodiscard]] int64_t count() const { return num_down_ + 1 + num_up_; }
  // -1 for what belongs to no block; conv_in belongs to the first.
  [[nodiscard]] int64_t operator()(std::string_view name) const {
    if (name.starts_with("conv_in.")) return 0;
    if (name.starts_with("mid_block.")) return num_down_;
    if (const int64_t down = index_after(name, "down_blocks."); down >= 0) return down;
    const int64_t up = index_after(name, "up_blocks.");
    return up < 0 ? -1 : num_down_ + 1 + up;
  }

 private:
  int64_t num_down_ = 0;
  int64_t num_up_ = 0;
};

std::vector<std::regex> compile(const std::vector<std::string>& patterns) {
  std::vector<std::regex> compiled;
  for (const auto& pattern : patterns) {
    try {
      compiled.emplace_back(pattern, std::regex::ECMAScript);
    } catch (const std::regex_error& error) {
      throw UsageError("freeze.patterns: '" + pattern + "' is not a regular expression (" +
                       error.what() + ").");
    }
  }
  return compiled;
}
}  // namespace

const std::vector<std::string>& freeze_groups() {
  static const std::vector<std::string> kNames = [] {
    std::vector<std::string> result;
    for (const auto& group : kGroups) result.emplace_back(group.name);
    return result;
  }();
  return kNames;
}

std::vector<bool> select_trained(const std::vector<std::string>& names,
                                 const FreezeOptions& options) {
  const std::vector<std::regex> patterns = compile(options.patterns);
  const BlockOrder block_of(names);
  if (options.first_blocks > block_of.count()) {
    throw UsageError("freeze.first_blocks = " + std::to_string(options.first_blocks) +
                     ", but the model has " + std::to_string(block_of.count()) +
                     " blocks (down blocks, the middle and up blocks). Lower it.");
  }
  std::vector<bool> trained;
  for (const auto& name : names) {
    const bool in_pattern = std::ranges::any_of(
        patterns, [&](const auto& pattern) { return std::regex_search(name, pattern); });
    const bool in_group = std::ranges::any_of(kGroups, [&](const Group& group) {
      return std::ranges::find(options.groups, group.name) != options.groups.end() &&
             group.holds(name);
    });
    const int64_t block = block_of(name);
    trained.push_back(!in_pattern && !in_group && !(block >= 0 && block < options.first_blocks));
  }
  if (std::ranges::find(trained, true) == trained.end()) {
    throw UsageError(
        "[freeze] freezes every parameter of the model: nothing is left to train. Freeze less.");
  }
  return trained;
}
}  // namespace trireme
