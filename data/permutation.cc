#include "data/permutation.h"

#include <cmath>

#include "core/error.h"

namespace trireme {
namespace {
constexpr uint32_t kNumRounds = 8;
}

Permutation::Permutation(int64_t n, uint64_t seed, uint64_t epoch, uint32_t stream)
    : n_(static_cast<uint64_t>(n)), seed_(seed), epoch_(epoch), first_block_(16 * stream) {
  check(n >= 1 && n <= int64_t{1} << 40, "a permutation of no or too many elements");
  // The smallest a with a^2 >= n; the square root of an integer below 2^53 is exact to rounding.
  a_ = static_cast<uint64_t>(std::sqrt(static_cast<double>(n_)));
  while (a_ * a_ < n_) ++a_;
  b_ = (n_ + a_ - 1) / a_;
}

uint64_t Permutation::round_value(uint32_t round, uint64_t half, uint64_t modulus) const noexcept {
  const auto words =
      PositionRandom(seed_, Stream::kOrder, epoch_, half).words(first_block_ + round);
  const uint64_t value = uint64_t{words[0]} << 32 | words[1];
  return static_cast<uint64_t>(static_cast<unsigned __int128>(value) * modulus >> 64);
}

int64_t Permutation::operator()(int64_t index) const noexcept {
  auto x = static_cast<uint64_t>(index);
  do {
    uint64_t l = x % a_;
    uint64_t r = x / a_;
    for (uint32_t round = 0; round < kNumRounds; round += 2) {
      l = (l + round_value(round, r, a_)) % a_;
      r = (r + round_value(round + 1, l, b_)) % b_;
    }
    x = r * a_ + l;
  } while (x >= n_);  // Back into [0, n): a walk along the cycle, which starts there.
  return static_cast<int64_t>(x);
}
}  // namespace trireme
