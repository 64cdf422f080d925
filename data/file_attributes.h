#pragma once
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace trireme {

// Whether it is a regular file that HDF5 knows as its own, whatever its name. Local.
[[nodiscard]] bool is_hdf5_file(const std::filesystem::path& file);

// The string and number attributes of an HDF5 file's root as text, by name: what a latent file says
// of its own origin. Local. Throws InputError naming the file.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> read_file_attributes(
    const std::filesystem::path& file);
}  // namespace trireme
