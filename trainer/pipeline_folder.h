#pragma once
#include <filesystem>
#include <optional>
#include <string_view>

namespace trireme {

// The folder `part` ("vae", "scheduler", "text_encoder", "tokenizer") that belongs to
// model.weights: inside it, or beside it where it is the unet folder (or a file in it). nullopt
// where there is none.
[[nodiscard]] std::optional<std::filesystem::path> pipeline_part(
    const std::filesystem::path& weights, std::string_view part);
}  // namespace trireme
