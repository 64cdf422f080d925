#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "data/latent_writer.h"
#include "dist/mpi_environment.h"
#include "trainer/pack_plan.h"
#include "trainer/pack_scan.h"

namespace trireme {

struct PackOptions {
  std::filesystem::path model;  // A diffusers folder: vae/, text_encoder/, tokenizer/.
  std::filesystem::path images;
  std::optional<std::filesystem::path>
      captions;  // A .jsonl; nullopt: NAME.txt beside each picture.
  std::filesystem::path out;
  int64_t resolution = 512;  // Pixels a side; the VAE's factor divides it.
  LatentKind kind = LatentKind::kMoments;
  OnUnreadable on_unreadable = OnUnreadable::kFail;
  Subfolders subfolders = Subfolders::kIgnored;
  int64_t batch = 0;  // Pictures encoded together; 0: as many as make up 512x512 pixels.
  std::string device = "cpu";
};

struct PackSummary {
  int64_t num_samples = 0;
  int64_t num_skipped = 0;
  int64_t num_captions = 0;  // Distinct, with the empty prompt; 0: a file without text.
};

// Encodes pictures and captions to a latent file (docs/dataset_format.md) that appears at once and
// whole. The ranks take contiguous runs of groups of fixed composition, each computed by one
// thread, so the bytes of the file depend neither on their number nor on that of threads.
// Collective; rank 0 logs progress. Throws InputError, UsageError.
PackSummary pack(MpiEnvironment& mpi, const PackOptions& options);
}  // namespace trireme
