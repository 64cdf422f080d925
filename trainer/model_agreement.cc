#include "trainer/model_agreement.h"

#include <algorithm>
#include <sstream>
#include <string>

#include "core/error.h"
#include "trainer/reduce/checksum.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
std::string shape_text(const at::Tensor& tensor) {
  std::string text = "(";
  for (const int64_t size : tensor.sizes())
    text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + ")";
}

std::string values_text(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.detach().cpu().contiguous().view({-1}).to(torch::kFloat);
  const std::vector<FlatBucket> one = {{.params = flat, .grads = flat, .segments = {}}};
  const at::Tensor sum = checksum_of(one, {{0, flat.numel()}}, Checksummed::kParameters);
  return checksum_text(static_cast<uint64_t>(sum.item<int64_t>()));
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// The first line in which this rank differs from rank 0 is an error of this rank.
void compare_with_first(MpiEnvironment& mpi, const std::string& mine, const std::string& what,
                        const std::string& cure) {
  std::string first = mine;
  mpi.broadcast_string(first);
  mpi.run_on_all_ranks([&] {
    if (first == mine) return;
    const auto theirs = lines_of(first);
    const auto ours = lines_of(mine);
    const auto [there, here] = std::ranges::mismatch(theirs, ours);
    const std::string nothing = "nothing more";
    throw UsageError("the ranks' " + what + " differ: where rank 0 has " +
                     (there == theirs.end() ? nothing : *there) + ", rank " +
                     std::to_string(mpi.rank()) + " has " + (here == ours.end() ? nothing : *here) +
                     ". " + cure);
  });
}
}  // namespace

void agree_on_model(MpiEnvironment& mpi, const NamedParameters& parameters) {
  std::string structure;
  std::string values;
  for (const auto& [name, tensor] : parameters) {
    structure += "'" + name + "' of shape " + shape_text(tensor) + "\n";
    values += "'" + name + "' with checksum " + values_text(tensor) + "\n";
  }
  const std::string cure =
      "Every rank must read the same model: look at model.weights or model.config on each host "
      "(another copy, or another version of it), and start again.";
  compare_with_first(mpi, structure, "models", cure);
  compare_with_first(mpi, values, "initial weights", cure);
}

void agree_on_buckets(MpiEnvironment& mpi, const NamedParameters& parameters,
                      const BucketPlan& plan) {
  std::string text;
  for (size_t b = 0; b < plan.size(); ++b) {
    for (const size_t index : plan[b]) {
      text += "'" + parameters[index].first + "' in bucket " + std::to_string(b) + "\n";
    }
  }
  compare_with_first(
      mpi, text, "gradient buckets",
      "Backward produced gradients in another order there, which equal programs on equal models do "
      "not: look for another trireme or LibTorch version on that host.");
}
}  // namespace trireme
