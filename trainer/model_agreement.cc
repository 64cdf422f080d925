#include "trainer/model_agreement.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/error.h"
#include "core/formatted.h"
#include "data/dataset_identity.h"
#include "dist/line_agreement.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/diffusion/scheduler_config.h"
#include "trainer/reduce/checksum.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
// Elements of which a device makes a checksum at once: it needs some 40 bytes for each.
constexpr int64_t kChecksumPart = int64_t{1} << 22;

std::string shape_text(const at::Tensor& tensor) {
  std::string text = "(";
  for (const int64_t size : tensor.sizes())
    text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + ")";
}

// In memory order, which ranks of one configuration share.
std::string values_text(const at::Tensor& tensor) {
  const at::Tensor values = tensor.detach().to(torch::kFloat);  // As it is, where it is float32.
  check(values.is_non_overlapping_and_dense(), "a dense tensor");
  const at::Tensor flat = values.as_strided({values.numel()}, {1});
  const std::vector<FlatBucket> one = {{.params = flat, .grads = flat, .segments = {}}};
  at::Tensor sum = torch::zeros({}, torch::dtype(torch::kLong).device(flat.device()));
  for (int64_t first = 0; first < flat.numel(); first += kChecksumPart) {
    const FlatRange part{first, std::min(first + kChecksumPart, flat.numel())};
    sum += checksum_of(one, {part}, Checksummed::kParameters);
  }
  return checksum_text(static_cast<uint64_t>(sum.item<int64_t>()));
}

void agree_on_data(MpiEnvironment& mpi, const LatentDataset* dataset, const DrawOptions& draw,
                   const std::string& key) {
  if (dataset == nullptr) return;
  std::string identity;
  mpi.run_on_all_ranks([&] { identity = identity_of(*dataset, draw); });
  agree_on_lines(mpi, identity, "files of " + key,
                 "Every rank must read the same data: look at " + key +
                     " on each host (another copy, or another version of it), and start again.");
}
}  // namespace

void agree_on_session(MpiEnvironment& mpi, const Session& session) {
  agree_on_model(mpi, session.model->resolved_config(), session.model->all_parameters());
  agree_on_lines(
      mpi,
      scheduler_config_json(session.config.noise, session.config.objective.prediction,
                            session.sampling),
      "scheduler configs",
      "Every rank must read the same one: look at scheduler/scheduler_config.json beside "
      "model.weights on each host, and start again.");
  agree_on_data(mpi, session.dataset.get(), session.draw, "data.train");
  agree_on_data(mpi, session.validation_files.get(), session.draw, "data.validation");
  agree_on_data(mpi, session.prior.get(), session.prior_draw, "data.prior");
}

void agree_on_model(MpiEnvironment& mpi, const std::string& config,
                    const NamedParameters& parameters) {
  std::string text = config;
  for (const auto& [name, tensor] : parameters) {
    text += "'" + name + "' of shape " + shape_text(tensor) + " with checksum " +
            values_text(tensor) + "\n";
  }
  agree_on_lines(mpi, text, "models",
                 "Every rank must read the same model: look at model.weights or model.config on "
                 "each host (another copy, or another version of it), and start again.");
}

void agree_on_buckets(MpiEnvironment& mpi, const NamedParameters& parameters,
                      const BucketPlan& plan) {
  std::string text;
  for (size_t b = 0; b < plan.size(); ++b) {
    for (const size_t index : plan[b]) {
      text += "'" + parameters[index].first + "' in bucket " + std::to_string(b) + "\n";
    }
  }
  agree_on_lines(
      mpi, text, "gradient buckets",
      "Backward produced gradients in another order there, which equal programs on equal models do "
      "not: look for another trireme or LibTorch version on that host.");
}

void agree_on_checkpoint(MpiEnvironment& mpi, const std::filesystem::path& folder) {
  std::string text;
  mpi.run_on_all_ranks([&] {
    for (const auto& [name, entry] : read_manifest(folder).files) {
      text += name + " with SHA-256 " + entry.sha256 + "\n";
    }
  });
  agree_on_lines(mpi, text, "checkpoints in " + folder.string(),
                 "Every rank must go on from the same one: give all hosts the same run directory, "
                 "or remove what an earlier run left in it there, and start again.");
}
}  // namespace trireme
