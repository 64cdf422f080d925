#include "trainer/checkpoint/manifest.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/sha256.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
constexpr std::string_view kFormat = "trireme-checkpoint";
constexpr int64_t kVersion = 1;

[[noreturn]] void throw_malformed(const fs::path& file, const std::string& what) {
  throw InputError(file.string() + ": " + what +
                   ". The checkpoint cannot be trusted; use another one of the run.");
}

bool is_sha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

Manifest::Entry read_entry(const fs::path& file, const std::string& name, const Json& json) {
  if (!is_plain_path(name))
    throw_malformed(file, "'" + name + "' is not a path inside the checkpoint");
  if (!json.is_object() || !json.contains("size") || !json["size"].is_number_unsigned() ||
      !json.contains("sha256") || !json["sha256"].is_string() ||
      !is_sha256(json["sha256"].get<std::string>())) {
    throw_malformed(file, "'" + name + "' lacks a size or a SHA-256");
  }
  return {json["size"].get<uint64_t>(), json["sha256"].get<std::string>()};
}
}  // namespace

bool is_plain_path(std::string_view path) {
  const fs::path parsed(path);
  if (path.empty() || parsed.is_absolute() || path.find('\0') != std::string_view::npos)
    return false;
  return std::ranges::none_of(
      parsed, [](const fs::path& part) { return part.empty() || part == "." || part == ".."; });
}

Manifest describe_folder(const fs::path& folder, int64_t step) {
  Manifest manifest{.step = step, .files = {}};
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_directory()) {
      sync_folder(entry.path());
      continue;
    }
    const std::string name = entry.path().lexically_relative(folder).generic_string();
    manifest.files[name] = {entry.file_size(), sha256_of_file(entry.path())};
  }
  return manifest;
}

std::string manifest_json(const Manifest& manifest) {
  Json files = Json::object();
  for (const auto& [name, entry] : manifest.files) {
    files[name] = {{"size", entry.size_bytes}, {"sha256", entry.sha256}};
  }
  const Json json = {
      {"format", kFormat}, {"version", kVersion}, {"step", manifest.step}, {"files", files}};
  return json.dump(2) + "\n";
}

Manifest read_manifest(const fs::path& folder) {
  const fs::path file = folder / Manifest::kFileName;
  const std::string text = read_text_file(file, "checkpoint manifest", uint64_t{16} << 20);
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) throw_malformed(file, "is not a JSON object");
  if (!json.contains("format") || json["format"] != kFormat) {
    throw_malformed(file, "its format is not '" + std::string(kFormat) + "'");
  }
  if (!json.contains("version") || json["version"] != kVersion) {
    throw_malformed(file, "its version is not " + std::to_string(kVersion) +
                              ", which is all that this program reads");
  }
  if (!json.contains("step") || !json["step"].is_number_unsigned() || !json.contains("files") ||
      !json["files"].is_object()) {
    throw_malformed(file, "lacks `step` or `files`");
  }
  Manifest manifest{.step = json["step"].get<int64_t>(), .files = {}};
  for (const auto& [name, entry] : json["files"].items())
    manifest.files[name] = read_entry(file, name, entry);
  return manifest;
}
}  // namespace trireme
