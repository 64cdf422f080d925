#include <nlohmann/json.hpp>

#include "core/error.h"
#include "launcher/inspect.h"
#include "trainer/adapters/lora.h"
#include "trainer/models/safetensors.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

// What the header says of rank, alpha and layers, as PEFT stores it.
void report_metadata(const SafetensorsReader& reader, ReportTable& table) {
  const auto found = reader.metadata().find("lora_adapter_metadata");
  if (found == reader.metadata().end()) {
    table.row("lora_adapter_metadata", "none: readers take alpha for the rank");
    return;
  }
  const auto json = nlohmann::json::parse(found->second, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    throw InputError(reader.files().front().string() +
                     ": lora_adapter_metadata in the header is not a JSON object. Write it again.");
  }
  for (const auto& [key, value] : json.items()) {
    table.row(one_line(key, 40), value.is_array()
                                     ? format_plural(static_cast<int64_t>(value.size()), "layer")
                                     : one_line(value.dump()));
  }
}
}  // namespace

void inspect_adapter(const fs::path& folder, InspectDepth depth, ReportTable& table) {
  table.heading("adapter " + folder.string());
  report_metadata(SafetensorsReader(folder / kLoraWeightsFile), table);
  if (fs::exists(folder / "base.json")) {
    const AdapterBase base = read_adapter_base(folder);
    table.row("base", one_line(base.path));
    table.row("SHA-256 of the base", base.sha256);
  }
  inspect_weights(folder / kLoraWeightsFile, depth, table);
}
}  // namespace trireme
