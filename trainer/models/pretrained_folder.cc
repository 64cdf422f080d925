#include "trainer/models/pretrained_folder.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "core/error.h"
#include "core/sha256.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

bool file_exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

at::IntArrayRef without_trailing_ones(at::IntArrayRef shape) {
  while (!shape.empty() && shape.back() == 1) shape = shape.slice(0, shape.size() - 1);
  return shape;
}

// From the parameter's name to the stored tensor's.
using StoredNames = std::map<std::string, std::string>;

StoredNames match_names(const SafetensorsReader& reader, const TensorNaming& naming,
                        const std::vector<NamedParameter>& parameters) {
  std::string problem;
  StoredNames stored;
  for (const auto& [name, entry] : reader.entries()) {
    const std::string ours = naming(name);
    if (ours.empty()) continue;
    const auto [place, fresh] = stored.emplace(ours, name);
    if (!fresh) problem += "; twice: " + place->second + " and " + name;
  }
  std::vector<std::string> missing;
  std::vector<std::string> misshapen;
  StoredNames surplus = stored;
  for (const auto& [name, tensor, init] : parameters) {
    surplus.erase(name);
    const auto found = stored.find(name);
    if (found == stored.end()) {
      missing.push_back(name);
      continue;
    }
    const auto& entry = reader.entries().at(found->second);
    if (without_trailing_ones(entry.shape) != without_trailing_ones(tensor.sizes())) {
      misshapen.push_back(name + " " + shape_text(entry.shape) + " instead of " +
                          shape_text(tensor.sizes()));
    } else if (!at::isFloatingType(entry.dtype)) {
      misshapen.push_back(name + " of " + at::toString(entry.dtype) + " numbers");
    }
  }
  std::vector<std::string> surplus_names;
  for (const auto& [ours, name] : surplus) surplus_names.push_back(name);
  if (!missing.empty()) problem += "; missing: " + list_some(missing);
  if (!misshapen.empty()) problem += "; of another shape: " + list_some(misshapen);
  if (!surplus_names.empty()) problem += "; surplus: " + list_some(surplus_names);
  if (problem.empty()) return stored;
  throw InputError("The weights " + reader.files().front().string() +
                   " do not fit the config.json beside them" + problem +
                   ". Use weights and config of one model.");
}
}  // namespace

std::string list_some(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(names.size(), 3); ++i) {
    text += (i == 0 ? "" : ", ") + names[i];
  }
  if (names.size() > 3) text += " and " + std::to_string(names.size() - 3) + " more";
  return text;
}

std::string shape_text(at::IntArrayRef shape) {
  std::string text;
  for (const int64_t size : shape) text += (text.empty() ? "" : "x") + std::to_string(size);
  return "[" + text + "]";
}

fs::path find_part_folder(const fs::path& folder, std::string_view part, std::string_view file) {
  if (file_exists(folder / part / file)) return folder / part;
  if (file_exists(folder / file)) return folder;
  throw InputError("The folder " + folder.string() + " holds neither " + std::string(part) + "/" +
                   std::string(file) + " nor " + std::string(file) +
                   "; give a diffusers folder as save_pretrained writes it.");
}

fs::path find_weights_file(const fs::path& folder, std::string_view stem) {
  const std::string name(stem);
  for (const auto& candidate :
       {name + ".safetensors", name + ".safetensors.index.json", name + ".fp16.safetensors",
        name + ".safetensors.index.fp16.json", name + ".fp16.safetensors.index.json"}) {
    if (file_exists(folder / candidate)) return folder / candidate;
  }
  throw InputError("The folder " + folder.string() + " holds no " + name +
                   ".safetensors; save the model with safe_serialization=True (pickled .bin files "
                   "are not read).");
}

void read_frozen_parameters(const SafetensorsReader& reader, const TensorNaming& naming,
                            const std::vector<NamedParameter>& parameters) {
  const StoredNames stored = match_names(reader, naming, parameters);
  const at::NoGradGuard no_grad;
  for (const auto& parameter : parameters) {
    at::Tensor target = parameter.tensor;
    target.requires_grad_(false);
    const std::string& name = stored.at(parameter.name);
    target.copy_(reader.read(name).view(target.sizes()));
    // A sum is cheap, and finite unless an element is not (in double it cannot overflow).
    if (!std::isfinite(target.sum(at::kDouble).item<double>())) {
      throw InputError("The weights " + reader.files().front().string() +
                       " hold numbers that are " + "not finite, in tensor " + name +
                       ". Use other weights.");
    }
  }
}

std::string sha256_of_weights(const std::vector<fs::path>& files) {
  if (files.size() == 1) return sha256_of_file(files.front());
  std::string digests;
  for (const auto& file : files) digests += sha256_of_file(file);
  return sha256_of_text(digests);
}

void move_parameters(const std::vector<NamedParameter>& parameters, const std::string& device) {
  const at::NoGradGuard no_grad;
  for (const auto& parameter : parameters) {
    parameter.tensor.set_data(parameter.tensor.to(at::Device(device)));
  }
}
}  // namespace trireme
