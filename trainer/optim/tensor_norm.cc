#include "trainer/optim/tensor_norm.h"

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "trainer/optim/elementwise_kernels.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace internal {
namespace {
constexpr int64_t kBlock = 4096;  // Elements. Part of what a tensor's norm means: never change it.
constexpr int64_t kBlocksAThread = 32;

double host_sum_of_squares(const float* values, int64_t n) {
  if (n <= kBlock) return block_sum_of_squares(values, n);
  std::vector<double> sums(static_cast<size_t>((n + kBlock - 1) / kBlock));
  at::parallel_for(0, static_cast<int64_t>(sums.size()), kBlocksAThread,
                   [&](int64_t begin, int64_t end) {
                     for (int64_t block = begin; block < end; ++block) {
                       const int64_t first = block * kBlock;
                       sums[static_cast<size_t>(block)] =
                           block_sum_of_squares(values + first, std::min(kBlock, n - first));
                     }
                   });
  double total = 0.0;
  for (const double sum : sums) total += sum;
  return total;
}
}  // namespace

at::Tensor sum_of_squares_of(const at::Tensor& values) {
  check(values.is_non_overlapping_and_dense() && values.scalar_type() == torch::kFloat,
        "dense float32");
  const torch::NoGradGuard no_grad;
  if (values.is_cpu()) {
    return torch::full({}, host_sum_of_squares(values.const_data_ptr<float>(), values.numel()),
                       torch::kDouble);
  }
  const at::Tensor flat = values.as_strided({values.numel()}, {1});
  at::Tensor total = torch::zeros({}, torch::dtype(torch::kDouble).device(values.device()));
  const int64_t whole = values.numel() / kBlock * kBlock;
  if (whole > 0) {
    total += flat.narrow(0, 0, whole).view({-1, kBlock}).to(torch::kDouble).square().sum(1).sum();
  }
  if (whole < values.numel()) {
    total += flat.narrow(0, whole, values.numel() - whole).to(torch::kDouble).square().sum();
  }
  return total;
}

void add_sum_of_squares(const at::Tensor& values, FlatRange range, at::Tensor& total) {
  const int64_t count = range.last - range.first;
  if (values.is_cpu()) {
    *total.data_ptr<double>() +=
        host_sum_of_squares(values.const_data_ptr<float>() + range.first, count);
  } else {
    total.add_(sum_of_squares_of(values.narrow(0, range.first, count)));
  }
}

at::Tensor norm_of(const at::Tensor& values) { return sum_of_squares_of(values).sqrt(); }
}  // namespace internal
}  // namespace trireme
