#pragma once
#include <cstdint>

#include "core/philox.h"

namespace trireme {

// A pseudo-random permutation of [0, n) without a table: a Feistel network of additions on pairs
// (l, r) of Z_a x Z_b, a b >= n, with cycle walking (Black and Rogaway, "Ciphers with Arbitrary
// Finite Domains", CT-RSA 2002). The round function is Philox at (seed, Stream::kOrder, epoch, the
// other half), block 16 x stream + round: docs/randomness.md, "Order". A value type.
class Permutation {
 public:
  // REQUIRES: 1 <= n <= 2^40, 0 <= epoch < 2^24, 0 <= stream < 2^28: which of several permutations.
  Permutation(int64_t n, uint64_t seed, uint64_t epoch, uint32_t stream);

  // REQUIRES: 0 <= index < n.
  [[nodiscard]] int64_t operator()(int64_t index) const noexcept;

 private:
  [[nodiscard]] uint64_t round_value(uint32_t round, uint64_t half,
                                     uint64_t modulus) const noexcept;

  uint64_t n_;
  uint64_t a_;
  uint64_t b_;
  uint64_t seed_;
  uint64_t epoch_;
  uint32_t first_block_;
};
}  // namespace trireme
