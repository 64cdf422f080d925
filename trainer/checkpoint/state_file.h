#pragma once
#include <filesystem>
#include <string>

#include "trainer/checkpoint/checkpoint.h"

namespace trireme {

// state.json (docs/checkpoint_format.md): all of CheckpointState but the configuration.
[[nodiscard]] std::string state_json(const CheckpointState& state);
// Reads state.json and config.toml of `folder`. Throws InputError naming what is malformed.
[[nodiscard]] CheckpointState read_state(const std::filesystem::path& folder);
}  // namespace trireme
