#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

// Elementary functions in double precision, without branches, tables or library calls, so that
// loops over them vectorise and give the same bits at any vector width and on any machine that
// rounds as IEEE 754 says (compile without contraction to FMA). Polynomials as in Sun's fdlibm.
namespace trireme::vector_math {

#define TRIREME_INLINE [[gnu::always_inline]] inline

// Natural logarithm of a positive normal number; error below 1 unit in the last place.
TRIREME_INLINE double log(double x) noexcept {
  // x = 2^k (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2).
  const uint64_t bits = std::bit_cast<uint64_t>(x) + (0x3ff0000000000000 - 0x3fe6a09e667f3bcd);
  // The biased exponent becomes a double by its bits: AVX2 cannot convert 64-bit integers.
  const double k = std::bit_cast<double>((bits >> 52) | 0x4330000000000000) - (0x1p52 + 1023.0);
  const double m = std::bit_cast<double>((bits & 0x000fffffffffffff) + 0x3fe6a09e667f3bcd);
  const double f = m - 1.0;
  const double s = f / (2.0 + f);
  const double z = s * s;
  const double w = z * z;
  const double even = w * (3.999999999940941908e-01 +
                           w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
  const double odd = z * (6.666666666666735130e-01 +
                          w * (2.857142874366239149e-01 +
                               w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
  const double half_square = 0.5 * f * f;
  return k * 6.93147180369123816490e-01 -
         ((half_square - (s * (half_square + (odd + even)) + k * 1.90821492927058770002e-10)) - f);
}

struct SinCos {
  double sin;
  double cos;
};

// Sine and cosine of 2 pi (word + 0.5) / 2^32.
TRIREME_INLINE SinCos sin_cos_turn(uint32_t word) noexcept {
  // The nearest quarter turn is taken off exactly, in integers.
  const uint32_t quarter = (word + 0x20000000U) >> 30;
  const double rest = static_cast<double>(static_cast<int32_t>(word - (quarter << 30))) + 0.5;
  const double x = rest * (6.283185307179586477 * 0x1p-32);  // In [-pi/4, pi/4].
  const double z = x * x;
  const double sine =
      x + x * z *
              (-1.66666666666666324348e-01 +
               z * (8.33333333332248946124e-03 +
                    z * (-1.98412698298579493134e-04 +
                         z * (2.75573137070700676789e-06 + z * (-2.50507602534068634195e-08 +
                                                                z * 1.58969099521155010221e-10)))));
  const double cosine =
      1.0 -
      (0.5 * z -
       z * z *
           (4.16666666666666019037e-02 +
            z * (-1.38888888888741095749e-03 +
                 z * (2.48015872894767294178e-05 +
                      z * (-2.75573143513906633035e-07 +
                           z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11))))));
  // Rotation by `quarter` quarter turns, by bits.
  const uint64_t swap = uint64_t{0} - (quarter & 1);
  const uint64_t sine_bits = std::bit_cast<uint64_t>(sine);
  const uint64_t cosine_bits = std::bit_cast<uint64_t>(cosine);
  const uint64_t exchanged = (sine_bits ^ cosine_bits) & swap;
  const uint64_t sine_sign = static_cast<uint64_t>(quarter >> 1) << 63;
  const uint64_t cosine_sign = static_cast<uint64_t>(((quarter + 1) >> 1) & 1) << 63;
  return {std::bit_cast<double>((sine_bits ^ exchanged) ^ sine_sign),
          std::bit_cast<double>((cosine_bits ^ exchanged) ^ cosine_sign)};
}

// Exponential of x in [-700, 700]; error below 2 units in the last place.
TRIREME_INLINE double exp(double x) noexcept {
  const double shifted = x * 1.44269504088896338700e+00 + 0x1.8p52;  // Rounds to nearest.
  const double k = shifted - 0x1.8p52;
  const double r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
  // Taylor to degree 13 on |r| <= ln(2) / 2.
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const uint64_t scale = (std::bit_cast<uint64_t>(shifted) + 1023) << 52;
  return p * std::bit_cast<double>(scale);
}

#undef TRIREME_INLINE
}  // namespace trireme::vector_math
