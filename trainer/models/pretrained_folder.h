#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/models/layers.h"
#include "trainer/models/safetensors.h"

// How the frozen parts of a diffusers folder (VAE, text encoder) are found and read.
namespace trireme {

// `folder`/`part` where that holds `file` (say config.json), or else `folder` where it does. Throws
// InputError naming both.
[[nodiscard]] std::filesystem::path find_part_folder(const std::filesystem::path& folder,
                                                     std::string_view part, std::string_view file);

// The weights in `folder` under the file name `stem`: `stem`.safetensors, an index of shards, or
// the fp16 variants where nothing else is. Throws InputError.
[[nodiscard]] std::filesystem::path find_weights_file(const std::filesystem::path& folder,
                                                      std::string_view stem);

// From the name of a stored tensor to that of the parameter it is for; "" for one to be passed
// over.
using TensorNaming = std::function<std::string(const std::string&)>;

// Fills `parameters` (float32, no gradient afterwards) from the file. A stored shape may differ
// from the parameter's by trailing ones. Throws InputError naming up to three tensors each that are
// missing, surplus or misshapen, or one that holds numbers that are not finite.
void read_frozen_parameters(const SafetensorsReader& reader, const TensorNaming& naming,
                            const std::vector<NamedParameter>& parameters);

// For messages: the first three names and how many more; "[4x8]".
[[nodiscard]] std::string list_some(const std::vector<std::string>& names);
[[nodiscard]] std::string shape_text(at::IntArrayRef shape);

// SHA-256 of the one file, or of the concatenated digests of several, in the reader's order.
[[nodiscard]] std::string sha256_of_weights(const std::vector<std::filesystem::path>& files);

// Moves the parameters, which layers share, to a device such as "cuda:0".
void move_parameters(const std::vector<NamedParameter>& parameters, const std::string& device);
}  // namespace trireme
