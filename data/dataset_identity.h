#pragma once
#include <string>

#include "data/loader.h"

namespace trireme {

// What tells a dataset from another one, a fact a line: of each file its scaling, and the number,
// shape and type of what it holds; the checksum of all latents, where the file has checksums of
// rows (`trireme pack` writes them); and that of the evaluation batch of each of up to 64 samples,
// evenly spaced. So what differs in other rows of a file without checksums, or in the text of other
// rows, passes. Reads those samples only. Local. Throws InputError.
[[nodiscard]] std::string identity_of(const LatentDataset& dataset, const DrawOptions& draw);
}  // namespace trireme
