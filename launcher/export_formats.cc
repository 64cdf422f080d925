#include "launcher/export_formats.h"

#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "trainer/adapters/kohya.h"
#include "trainer/adapters/lora.h"
#include "trainer/models/json_file.h"
#include "trainer/models/single_file.h"
#include "trainer/pipeline_folder.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

void copy_synced(const fs::path& from, const fs::path& to) {
  fs::create_directories(to);
  fs::copy(from, to, fs::copy_options::recursive);
  for (const auto& entry : fs::recursive_directory_iterator(to)) {
    if (entry.is_regular_file()) File::open_for_reading(entry.path(), "copy").sync();
    if (entry.is_directory()) sync_folder(entry.path());
  }
  sync_folder(to);
}

// The diffusers folder that the run started from, where it is still there.
std::optional<fs::path> base_folder(const Config& config) {
  for (const char* part : {"vae", "text_encoder", "tokenizer"}) {
    if (const auto folder = pipeline_part(config.model.weights, part)) {
      if (fs::exists(folder->parent_path() / "model_index.json")) return folder->parent_path();
    }
  }
  return std::nullopt;
}

bool is_part(const nlohmann::json& value) {
  return value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_string();
}

// Copies the other parts of the pipeline, and model_index.json with the checkpoint's scheduler.
void copy_pipeline(const fs::path& base, const std::string& model_folder, const fs::path& out) {
  nlohmann::json index = read_json_object(base / "model_index.json", "pipeline index");
  const fs::path scheduler = out / "scheduler" / "scheduler_config.json";
  for (auto& [name, value] : index.items()) {
    if (!is_part(value) || name == model_folder) continue;
    const bool plain = fs::path(name) == fs::path(name).filename() && name != "." && name != "..";
    if (name == "scheduler" && fs::exists(scheduler)) {
      const auto config = read_json_object(scheduler, "scheduler configuration");
      if (config.contains("_class_name")) value = {"diffusers", config["_class_name"]};
    } else if (plain && fs::is_directory(base / name)) {
      copy_synced(base / name, out / name);
    } else {
      value = {nullptr, nullptr};
    }
  }
  write_text_file_atomically(out / "model_index.json", index.dump(2) + "\n");
}

bool has_adapter(const OpenedCheckpoint& checkpoint) {
  return checkpoint.config.adapter.type != "none";
}

void require_adapter(const OpenedCheckpoint& checkpoint, const std::string& format) {
  if (has_adapter(checkpoint)) return;
  throw UsageError("--format " + format +
                   " exports an adapter, and this checkpoint has none: its run trained the weights "
                   "themselves. Use --format diffusers or single-file.");
}
}  // namespace

void write_diffusers(const OpenedCheckpoint& checkpoint, CheckpointWeights which,
                     const fs::path& out) {
  const fs::path weights = checkpoint.weights(which);
  std::string model_folder = checkpoint.weights(CheckpointWeights::kTrained).filename().string();
  if (has_adapter(checkpoint)) {
    const auto model = open_model(checkpoint.config, weights);
    model_folder = model->folder_name();
    fs::create_directories(out / model_folder);
    save_model_folder(out / model_folder,
                      {.folder = model_folder, .texts = {{"config.json", model->config_json()}}},
                      model->merged_parameters());
  } else {
    copy_synced(weights, out / model_folder);
  }
  if (fs::exists(checkpoint.folder / "scheduler"))
    copy_synced(checkpoint.folder / "scheduler", out / "scheduler");
  if (const auto base = base_folder(checkpoint.config)) {
    copy_pipeline(*base, model_folder, out);
  } else {
    log::warn("only " + model_folder +
              "/ is exported: no diffusers folder with a model_index.json was found "
              "in or beside model.weights = '" +
              checkpoint.config.model.weights + "'");
  }
  sync_folder(out);
}

void write_lora_peft(const OpenedCheckpoint& checkpoint, CheckpointWeights which,
                     const fs::path& out) {
  require_adapter(checkpoint, "lora-peft");
  fs::copy_file(checkpoint.weights(which) / kLoraWeightsFile, out / kLoraWeightsFile);
  File::open_for_reading(out / kLoraWeightsFile, "copy").sync();
  sync_folder(out);
}

void write_lora_kohya(const OpenedCheckpoint& checkpoint, CheckpointWeights which,
                      const fs::path& out) {
  require_adapter(checkpoint, "lora-kohya");
  write_kohya_lora(checkpoint.weights(which), checkpoint.config.adapter, out);
}

void write_single_file(const OpenedCheckpoint& checkpoint, CheckpointWeights which,
                       const fs::path& out) {
  const auto model = open_model(checkpoint.config, checkpoint.weights(which));
  const SingleFileParts parts{
      .unet = model->merged_parameters(),
      .unet_config_json = model->config_json(),
      .vae = pipeline_part(checkpoint.config.model.weights, "vae"),
      .text_encoder = pipeline_part(checkpoint.config.model.weights, "text_encoder")};
  for (const auto& [name, part] :
       {std::pair("vae", parts.vae), std::pair("text_encoder", parts.text_encoder)}) {
    if (part) continue;
    log::warn(std::string("the file has no ") + name + ": there is no " + name +
              "/ in or beside model.weights = '" + checkpoint.config.model.weights + "'");
  }
  write_single_file(out, parts);
}
}  // namespace trireme
