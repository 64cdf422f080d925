#include "trainer/evaluate/frechet.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <span>
#include <vector>

#include "core/error.h"
#include "trainer/evaluate/collect.h"
#include "trainer/in_touch.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr int64_t kRows = 1024;        // Of a block that is summed as one.
constexpr int64_t kColumns = 256;      // Of a covariance that a rank computes at a time.
constexpr int64_t kKernelRows = 1000;  // Of a block of the kernel distance.

bool is_mine(const MpiEnvironment& mpi, int64_t item) {
  return item % mpi.world_size() == mpi.rank();
}

at::Tensor rows_of(const at::Tensor& features, int64_t first) {
  return features.narrow(0, first, std::min(kRows, features.size(0) - first)).to(at::kDouble);
}

at::Tensor mean_of(const at::Tensor& features) {
  at::Tensor sum = at::zeros({features.size(1)}, at::kDouble);
  for (int64_t first = 0; first < features.size(0); first += kRows) {
    sum += rows_of(features, first).sum(0);
  }
  return sum / static_cast<double>(features.size(0));
}

// tr (A B)^(1/2) of positive semi-definite matrices: that of A^(1/2) B A^(1/2), which is symmetric.
double trace_of_root(const at::Tensor& a, const at::Tensor& b) {
  const auto [values, vectors] = at::linalg_eigh(a);
  const at::Tensor scaled = vectors * values.clamp_min(0).sqrt();
  const at::Tensor root = scaled.mm(vectors.t());
  const at::Tensor product = root.mm(b).mm(root);
  return at::linalg_eigvalsh((product + product.t()) / 2).clamp_min(0).sqrt().sum().item<double>();
}

// The sum of kernel values of all pairs of rows; `same` leaves out a row with itself.
enum class Pairs { kAll, kDistinct };
double kernel_sum(const at::Tensor& a, const at::Tensor& b, Pairs pairs) {
  const auto num_features = static_cast<double>(a.size(1));
  const at::Tensor values = (a.to(at::kDouble).mm(b.to(at::kDouble).t()) / num_features + 1).pow(3);
  const double sum = values.sum().item<double>();
  return pairs == Pairs::kAll ? sum : sum - values.diagonal().sum().item<double>();
}

// One term of the estimate, and what it is divided by to become its share of a mean.
struct KernelTerm {
  std::function<double()> sum;
  double weight;
};

void add_terms_within(const at::Tensor& x, std::vector<KernelTerm>& terms) {
  const int64_t count = x.size(0);
  const int64_t blocks = std::min((count + kKernelRows - 1) / kKernelRows, count / 2);
  double pairs = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t rows = (count - b + blocks - 1) / blocks;
    const auto n = static_cast<double>(rows);
    pairs += n * (n - 1);
  }
  for (int64_t b = 0; b < blocks; ++b) {
    terms.push_back({[x, b, blocks] {
                       const at::Tensor rows = x.slice(0, b, x.size(0), blocks);
                       return kernel_sum(rows, rows, Pairs::kDistinct);
                     },
                     1 / pairs});
  }
}

void add_terms_across(const at::Tensor& a, const at::Tensor& b, std::vector<KernelTerm>& terms) {
  const double pairs = static_cast<double>(a.size(0)) * static_cast<double>(b.size(0));
  for (int64_t first = 0; first < a.size(0); first += kKernelRows) {
    for (int64_t other = 0; other < b.size(0); other += kKernelRows) {
      terms.push_back({[=] {
                         const auto part = [](const at::Tensor& x, int64_t begin) {
                           return x.narrow(0, begin, std::min(kKernelRows, x.size(0) - begin));
                         };
                         return kernel_sum(part(a, first), part(b, other), Pairs::kAll);
                       },
                       -2 / pairs});
    }
  }
}
}  // namespace

FeatureStatistics feature_statistics(MpiEnvironment& mpi, const at::Tensor& features) {
  check(features.dim() == 2 && features.size(0) >= 2, "features (N, D) of at least two pictures");
  const int64_t width = features.size(1);
  FeatureStatistics result;
  result.covariance = at::zeros({width, width}, at::kDouble);
  run_in_touch(mpi, [&](WorkReport& report) {
    const at::NoGradGuard no_grad;
    result.mean = mean_of(features);
    for (int64_t first = 0; first < width; first += kColumns) {
      if (!is_mine(mpi, first / kColumns)) continue;
      const int64_t n = std::min(kColumns, width - first);
      at::Tensor tile = at::zeros({width, n}, at::kDouble);
      for (int64_t row = 0; row < features.size(0); row += kRows) {
        const at::Tensor centred = rows_of(features, row) - result.mean;
        tile += centred.t().mm(centred.narrow(1, first, n));
        report.advance(0);
      }
      result.covariance.narrow(1, first, n).copy_(tile / static_cast<double>(features.size(0) - 1));
    }
  });
  all_reduce_in_pieces(mpi, result.covariance);
  return result;
}

double frechet_distance(MpiEnvironment& mpi, const FeatureStatistics& a,
                        const FeatureStatistics& b) {
  std::array<double, 1> distance = {0.0};
  run_in_touch(mpi, [&](WorkReport&) {
    if (mpi.rank() != 0) return;
    const at::NoGradGuard no_grad;
    const double shift = (a.mean - b.mean).square().sum().item<double>();
    const double spread = (a.covariance.trace() + b.covariance.trace()).item<double>();
    distance[0] = shift + spread - 2 * trace_of_root(a.covariance, b.covariance);
  });
  mpi.all_reduce_sum(distance);
  return distance[0];
}

double frechet_distance(MpiEnvironment& mpi, const at::Tensor& features,
                        const FeatureStatistics& reference) {
  if (features.size(0) > features.size(1)) {
    return frechet_distance(mpi, feature_statistics(mpi, features), reference);
  }
  std::array<double, 1> distance = {0.0};
  run_in_touch(mpi, [&](WorkReport&) {
    if (mpi.rank() != 0) return;
    const at::NoGradGuard no_grad;
    const at::Tensor mean = mean_of(features);
    const at::Tensor centred = (features.to(at::kDouble) - mean) /
                               std::sqrt(static_cast<double>(features.size(0) - 1));  // (N, D)
    const at::Tensor small = centred.mm(reference.covariance).mm(centred.t());
    const at::Tensor roots = at::linalg_eigvalsh((small + small.t()) / 2).clamp_min(0).sqrt();
    const double shift = (mean - reference.mean).square().sum().item<double>();
    const double spread = (centred.square().sum() + reference.covariance.trace()).item<double>();
    distance[0] = shift + spread - 2 * roots.sum().item<double>();
  });
  mpi.all_reduce_sum(distance);
  return distance[0];
}

double kernel_distance(MpiEnvironment& mpi, const at::Tensor& a, const at::Tensor& b) {
  check(a.size(0) >= 2 && b.size(0) >= 2, "at least two pictures in each set");
  std::vector<KernelTerm> terms;
  add_terms_within(a, terms);
  add_terms_within(b, terms);
  add_terms_across(a, b, terms);
  std::vector<double> sums(terms.size(), 0.0);
  run_in_touch(mpi, [&](WorkReport& report) {
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < terms.size(); ++i) {
      if (!is_mine(mpi, static_cast<int64_t>(i))) continue;
      sums[i] = terms[i].sum();
      report.advance(0);
    }
  });
  mpi.all_reduce_sum(sums);  // Each is one rank's number plus zeros: exact.
  double distance = 0.0;
  for (size_t i = 0; i < terms.size(); ++i) distance += terms[i].weight * sums[i];
  return distance;
}
}  // namespace trireme
