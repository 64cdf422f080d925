#include "trainer/pipeline_folder.h"

namespace trireme {

std::optional<std::filesystem::path> pipeline_part(const std::filesystem::path& weights,
                                                   std::string_view part) {
  namespace fs = std::filesystem;
  if (weights.empty()) return std::nullopt;
  fs::path folder = fs::absolute(weights).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  for (int level = 0; level < 3 && folder.has_relative_path(); ++level) {
    std::error_code ignored;
    if (fs::is_directory(folder / part, ignored)) return folder / part;
    if (fs::exists(folder / "model_index.json", ignored)) return std::nullopt;
    folder = folder.parent_path();
  }
  return std::nullopt;
}
}  // namespace trireme
