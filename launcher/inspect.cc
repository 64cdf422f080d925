#include "launcher/inspect.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "data/file_attributes.h"
#include "launcher/config_file.h"
#include "trainer/adapters/lora.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

enum class PathKind { kDataset, kWeights, kModelFolder, kAdapter, kCheckpoint, kRun, kConfig };

// A diffusers folder as train takes it: the network in a folder of its own, with or without more.
bool holds_model_part(const fs::path& folder) {
  std::error_code error;  // A folder that cannot be listed holds nothing.
  return std::ranges::any_of(fs::directory_iterator(folder, error),
                             [&error](const fs::directory_entry& entry) {
                               return fs::exists(entry.path() / "config.json", error);
                             });
}

PathKind kind_of_folder(const fs::path& folder) {
  if (fs::exists(folder / "manifest.json")) return PathKind::kCheckpoint;
  if (fs::exists(folder / "state.json")) {
    throw InputError("the checkpoint " + folder.string() +
                     " has no manifest.json: it is not whole. Use another one of the run.");
  }
  if (fs::exists(folder / "model_index.json") || fs::exists(folder / "config.json")) {
    return PathKind::kModelFolder;
  }
  if (fs::exists(folder / kLoraWeightsFile)) return PathKind::kAdapter;
  if (fs::exists(folder / "config.toml")) return PathKind::kRun;
  if (holds_model_part(folder)) return PathKind::kModelFolder;
  throw InputError(
      "the folder " + folder.string() +
      " holds nothing that is known: a diffusers folder has model_index.json, or config.json in it "
      "or in a folder of it, a checkpoint manifest.json, a run config.toml. Name one of these, or a "
      "file.");
}

PathKind kind_of(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    throw InputError("there is no " + path.string() + ". See that the path is spelt right.");
  }
  if (fs::is_directory(status)) return kind_of_folder(path);
  const std::string extension = path.extension().string();
  const std::string name = path.filename().string();
  if (extension == ".safetensors" || name.ends_with(".safetensors.index.json"))
    return PathKind::kWeights;
  if (extension == ".toml") return PathKind::kConfig;
  if (extension == ".h5" || extension == ".hdf5" || is_hdf5_file(path)) return PathKind::kDataset;
  throw InputError(
      "it is not known what " + path.string() +
      " is. Datasets end with .h5 or .hdf5, weights with .safetensors, configurations with .toml.");
}

void inspect_kind(PathKind kind, const fs::path& path, InspectDepth depth, ReportTable& table) {
  switch (kind) {
    case PathKind::kDataset:
      return inspect_dataset(path, depth, table);
    case PathKind::kWeights:
      return inspect_weights(path, depth, table);
    case PathKind::kModelFolder:
      return inspect_diffusers_folder(path, depth, table);
    case PathKind::kAdapter:
      return inspect_adapter(path, depth, table);
    case PathKind::kCheckpoint:
      return inspect_checkpoint(path, depth, table);
    case PathKind::kRun:
      return inspect_run(path, depth, table);
    case PathKind::kConfig:
      return table.heading(write_config(load_config(path).config));
  }
}
}  // namespace

void inspect_path(const fs::path& path, InspectDepth depth, std::ostream& out) {
  ReportTable table;
  try {
    inspect_kind(kind_of(path), path, depth, table);
  } catch (...) {
    table.print(out);
    out.flush();
    throw;
  }
  table.print(out);
}
}  // namespace trireme
