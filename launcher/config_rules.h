#pragma once
#include <functional>
#include <string>
#include <string_view>

#include "trainer/config.h"

namespace trireme {

// Where a key was given, "FILE:LINE" or "--set optim.lr"; empty where it was not.
using PlaceOfKey = std::function<std::string(std::string_view key)>;

// The rules that bind several keys, or that a range cannot say: exclusive pairs, powers of two,
// what needs what. `file` stands for the place of keys that are absent. Throws UsageError.
void check_config_rules(const Config& config, const std::string& file, const PlaceOfKey& place);
}  // namespace trireme
