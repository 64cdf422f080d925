#pragma once
#include <cstdint>

#include "data/dataset.h"

namespace trireme {

// Which of the ranks reads; a lone reader reads all.
struct LatentCheckShare {
  int64_t part = 0;
  int64_t num_parts = 1;
};

// Reads about `most` latents, evenly spaced over the dataset, as training would: InputError names
// the first that is damaged or not finite. A dataset of no more is read whole. Local. Returns how
// many `share` came to.
int64_t check_latents(const LatentDataset& dataset, int64_t most, LatentCheckShare share = {});
}  // namespace trireme
