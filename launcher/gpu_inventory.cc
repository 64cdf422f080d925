#include "launcher/gpu_inventory.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>
#include <system_error>

namespace trireme {
namespace {
namespace fs = std::filesystem;

std::string first_line(const fs::path& file) {
  std::ifstream stream(file);
  std::string line;
  std::getline(stream, line);
  return line;
}

std::optional<int> number(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// The value of "Name: \t value" in the driver's `information` file of a GPU.
std::string information(const fs::path& file, std::string_view name) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    if (!line.starts_with(name) || line.size() <= name.size() || line[name.size()] != ':') continue;
    const size_t first = line.find_first_not_of(" \t", name.size() + 1);
    return first == std::string::npos ? "" : line.substr(first);
  }
  return {};
}

int count_mig_instances(const fs::path& root, int minor) {
  int count = 0;
  std::error_code ignored;
  const fs::path mig =
      root / "proc/driver/nvidia/capabilities" / ("gpu" + std::to_string(minor)) / "mig";
  for (fs::directory_iterator gpu(mig, ignored), end; gpu != end; gpu.increment(ignored)) {
    for (fs::directory_iterator part(gpu->path(), ignored); part != end; part.increment(ignored)) {
      if (part->path().filename().string().starts_with("ci")) ++count;
    }
  }
  return count;
}

bool has_node(const fs::path& root, int minor) {
  std::error_code ignored;
  return fs::exists(root / ("dev/nvidia" + std::to_string(minor)), ignored);
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

const Gpu* find_uuid(const std::vector<Gpu>& all, const std::string& beginning) {
  const Gpu* found = nullptr;
  for (const auto& gpu : all) {
    if (!gpu.uuid.starts_with(beginning)) continue;
    if (found != nullptr) return nullptr;  // Ambiguous.
    found = &gpu;
  }
  return found;
}

bool is_mig(const Gpu& gpu) { return gpu.num_mig_instances > 0; }
}  // namespace

std::vector<Gpu> all_gpus(const fs::path& root) {
  std::vector<Gpu> gpus;
  std::error_code ignored;
  int position = 0;
  std::vector<fs::path> folders;
  for (fs::directory_iterator entry(root / "proc/driver/nvidia/gpus", ignored), end; entry != end;
       entry.increment(ignored)) {
    folders.push_back(entry->path());
  }
  std::ranges::sort(folders);
  for (const auto& folder : folders) {
    const fs::path facts = folder / "information";
    // Without that line, an old driver's, minors count in the order of the addresses.
    const int minor = number(information(facts, "Device Minor")).value_or(position);
    ++position;
    if (!has_node(root, minor)) continue;
    Gpu gpu{.pci_address = folder.filename().string(),
            .uuid = information(facts, "GPU UUID"),
            .model = information(facts, "Model"),
            .numa_node = -1,
            .num_mig_instances = count_mig_instances(root, minor)};
    gpu.numa_node = number(first_line(root / "sys/bus/pci/devices" / gpu.pci_address / "numa_node"))
                        .value_or(-1);
    gpus.push_back(std::move(gpu));
  }
  // A container without /proc/driver: the device nodes tell how many there are.
  if (folders.empty()) {
    for (int minor = 0; has_node(root, minor); ++minor) gpus.emplace_back();
  }
  return gpus;
}

std::vector<Gpu> detect_gpus(const fs::path& root, const char* visible) {
  const std::vector<Gpu> all = all_gpus(root);
  std::vector<Gpu> chosen;
  if (visible == nullptr) {
    chosen = all;
  } else {
    for (const auto& name : split(visible, ',')) {
      if (name.starts_with("MIG-")) {
        const auto parent = std::ranges::find_if(all, is_mig);
        Gpu instance = parent == all.end() ? Gpu{} : *parent;
        instance.num_mig_instances = 1;
        chosen.push_back(std::move(instance));
        continue;
      }
      if (name.starts_with("GPU-")) {
        const Gpu* found = find_uuid(all, name);
        const bool uuids_known =
            std::ranges::all_of(all, [](const Gpu& gpu) { return !gpu.uuid.empty(); });
        if (found == nullptr && uuids_known) break;
        chosen.push_back(found == nullptr ? Gpu{} : *found);
        continue;
      }
      const auto index = number(name);
      if (!index || *index < 0 || static_cast<size_t>(*index) >= all.size()) break;
      chosen.push_back(all[static_cast<size_t>(*index)]);
    }
  }
  // CUDA shows a process one MIG instance, and then no other device.
  const auto mig = std::ranges::find_if(chosen, is_mig);
  if (mig != chosen.end()) return {*mig};
  return chosen;
}
}  // namespace trireme
