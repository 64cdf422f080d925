#pragma once
#include <filesystem>

#include "study/study_grid.h"

namespace trireme {

// Reads a STUDY (TOML, docs/study.md), strictly: an unknown key, a wrong type or a value that
// cannot be run is a UsageError naming file, line and the nearest valid key.
[[nodiscard]] StudyOptions load_study(const std::filesystem::path& file);
}  // namespace trireme
