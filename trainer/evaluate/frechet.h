#pragma once
#include <cstdint>

#include <ATen/core/Tensor.h>

#include "dist/mpi_environment.h"

namespace trireme {

// Mean and covariance of features, in double.
struct FeatureStatistics {
  at::Tensor mean;        // (D)
  at::Tensor covariance;  // (D, D), divided by N - 1
};

// Of `features` (N, D), equal on all ranks; N >= 2. Sums run over fixed blocks of rows in a fixed
// order; blocks of columns are dealt out to the ranks. So the result is the same at any number of
// ranks. Collective, in touch.
[[nodiscard]] FeatureStatistics feature_statistics(MpiEnvironment& mpi, const at::Tensor& features);

// The Fréchet distance of two normal distributions (Dowson and Landau, 1982; Heusel et al., 2017):
// |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)). Computed by rank 0. Collective, in touch.
[[nodiscard]] double frechet_distance(MpiEnvironment& mpi, const FeatureStatistics& a,
                                      const FeatureStatistics& b);

// The same of features (N, D), equal on all ranks, N >= 2, to a reference. Up to D rows the root is
// taken of an N x N matrix with the same eigenvalues, which is faster and loses no digits to a
// singular covariance. Collective, in touch.
[[nodiscard]] double frechet_distance(MpiEnvironment& mpi, const at::Tensor& features,
                                      const FeatureStatistics& reference);

// The kernel distance (Binkowski et al., 2018): the unbiased estimate of the squared maximum mean
// discrepancy under the kernel (x.y / D + 1)^3; it may be negative. Within a set, pairs are those
// of interleaved blocks of at most 1,000 rows, across the sets all pairs; up to 1,000 rows that is
// the usual estimate. a: (N, D), b: (M, D), equal on all ranks, N, M >= 2. Dealt out to the ranks;
// the same at any number of them. Collective, in touch.
[[nodiscard]] double kernel_distance(MpiEnvironment& mpi, const at::Tensor& a, const at::Tensor& b);
}  // namespace trireme
