#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "dist/mpi_environment.h"
#include "trainer/evaluate/feature_rows.h"
#include "trainer/session.h"

namespace trireme {

// A set of pictures to compare with: how many, and of any of them content and features.
struct PictureSet {
  std::string name;  // For messages and progress.
  int64_t count = 0;
  std::function<std::string(int64_t item)> digest;           // Of the content, hexadecimal.
  std::function<at::Tensor(int64_t first, int64_t n)> rows;  // (n, reference_width())
};

// The pictures that scores.reference names: those of the data are decoded from the posterior means,
// those of a folder are cut to the samples' size as pack does it. `session` and `features` outlive
// it. Local. Throws UsageError and InputError.
[[nodiscard]] PictureSet reference_pictures(const Session& session, FeatureRows& features);

// All pictures of a folder, by name, at most `resolution` x `resolution` as pack cuts them; 0: as
// they are.
[[nodiscard]] PictureSet folder_pictures(const std::filesystem::path& folder, int64_t resolution,
                                         FeatureRows& features);

// Their rows (count, reference_width()), on every rank; the pictures are dealt out. Where `cache`
// names a folder they are kept there under a hash of the pictures' content and of the networks, and
// read from there another time; a cache that cannot be written is a warning. Collective, in touch.
[[nodiscard]] at::Tensor feature_rows_of(MpiEnvironment& mpi, const PictureSet& pictures,
                                         const FeatureRows& features, int64_t batch,
                                         const std::filesystem::path& cache);
}  // namespace trireme
