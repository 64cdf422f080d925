#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "core/error.h"
#include "data/image.h"

namespace trireme {
namespace {

constexpr double kRadius = 3.0;    // Lanczos' a.
constexpr int kFractionBits = 22;  // Of the fixed-point weights.

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= std::numbers::pi;
  return std::sin(x) / x;
}

double lanczos(double x) {
  return x >= -kRadius && x < kRadius ? sinc(x) * sinc(x / kRadius) : 0.0;
}

// The part [first, first + count) of an axis.
struct Extent {
  int64_t first = 0;
  int64_t count = 0;
};

// One output pixel is a weighted sum of the input pixels [first, first + weights.size()).
struct Taps {
  int64_t first = 0;
  std::vector<int32_t> weights;
};

std::vector<Taps> make_taps(int64_t in_size, int64_t out_size, Extent part) {
  const double scale = static_cast<double>(in_size) / static_cast<double>(out_size);
  const double filter_scale = std::max(scale, 1.0);
  const double support = kRadius * filter_scale;
  const double inverse_scale = 1.0 / filter_scale;
  std::vector<Taps> taps(static_cast<size_t>(part.count));
  std::vector<double> exact;
  for (int64_t i = 0; i < part.count; ++i) {
    const double centre = (static_cast<double>(part.first + i) + 0.5) * scale;
    // NOLINTBEGIN(bugprone-incorrect-roundings): Pillow rounds so.
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(centre - support + 0.5), 0);
    const int64_t end = std::min(static_cast<int64_t>(centre + support + 0.5), in_size);
    // NOLINTEND(bugprone-incorrect-roundings)
    exact.clear();
    double sum = 0.0;
    for (int64_t x = 0; x < end - first; ++x) {
      exact.push_back(lanczos((static_cast<double>(x + first) - centre + 0.5) * inverse_scale));
      sum += exact.back();
    }
    Taps& out = taps[static_cast<size_t>(i)];
    out.first = first;
    for (double weight : exact) {
      if (sum != 0.0) weight /= sum;
      const double fixed = weight * (1 << kFractionBits);
      out.weights.push_back(static_cast<int32_t>(weight < 0 ? fixed - 0.5 : fixed + 0.5));
    }
  }
  return taps;
}

uint8_t to_byte(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kFractionBits, 0, 255));
}

constexpr int32_t kHalf = 1 << (kFractionBits - 1);

// Rows [rows.first, rows.first + rows.count) of `image`, each resampled.
Image resample_rows(const Image& image, const std::vector<Taps>& taps, Extent rows) {
  Image out{.width = static_cast<int64_t>(taps.size()), .height = rows.count, .pixels = {}};
  out.pixels.resize(taps.size() * static_cast<size_t>(rows.count) * 3);
  uint8_t* to = out.pixels.data();
  for (int64_t y = 0; y < rows.count; ++y) {
    const uint8_t* line =
        image.pixels.data() + static_cast<size_t>(rows.first + y) * 3 * image.width;
    for (const Taps& tap : taps) {
      const uint8_t* from = line + 3 * tap.first;
      int32_t red = kHalf, green = kHalf, blue = kHalf;
      for (const int32_t weight : tap.weights) {
        red += from[0] * weight;
        green += from[1] * weight;
        blue += from[2] * weight;
        from += 3;
      }
      to[0] = to_byte(red);
      to[1] = to_byte(green);
      to[2] = to_byte(blue);
      to += 3;
    }
  }
  return out;
}

// Columns resampled; `image` holds the rows from `first_row` on.
Image resample_columns(const Image& image, const std::vector<Taps>& taps, int64_t first_row) {
  const size_t row_size = 3 * static_cast<size_t>(image.width);
  Image out{.width = image.width, .height = static_cast<int64_t>(taps.size()), .pixels = {}};
  out.pixels.resize(row_size * taps.size());
  std::vector<int32_t> sums(row_size);
  for (size_t y = 0; y < taps.size(); ++y) {
    std::fill(sums.begin(), sums.end(), kHalf);
    const uint8_t* from =
        image.pixels.data() + static_cast<size_t>(taps[y].first - first_row) * row_size;
    for (const int32_t weight : taps[y].weights) {
      for (size_t x = 0; x < row_size; ++x) sums[x] += from[x] * weight;
      from += row_size;
    }
    uint8_t* to = out.pixels.data() + y * row_size;
    for (size_t x = 0; x < row_size; ++x) to[x] = to_byte(sums[x]);
  }
  return out;
}

// The part (columns, rows) of `image` resized to width x height, without making the rest.
Image resize_part(const Image& image, int64_t width, int64_t height, Extent columns, Extent rows) {
  check(image.width > 0 && image.height > 0 &&
            image.pixels.size() == 3 * static_cast<size_t>(image.width * image.height),
        "an image's pixels match its size");
  check(width > 0 && height > 0, "an image is resized to at least one pixel");
  const auto column_taps = make_taps(image.width, width, columns);
  const auto row_taps = make_taps(image.height, height, rows);
  int64_t first = image.height;
  int64_t end = 0;
  for (const Taps& tap : row_taps) {
    first = std::min(first, tap.first);
    end = std::max(end, tap.first + static_cast<int64_t>(tap.weights.size()));
  }
  const Image narrowed = resample_rows(image, column_taps, {.first = first, .count = end - first});
  return resample_columns(narrowed, row_taps, first);
}

// long_side * resolution / short_side, to nearest, ties to even.
int64_t scaled_side(int64_t long_side, int64_t short_side, int64_t resolution) {
  const int64_t whole = long_side * resolution / short_side;
  const int64_t twice_rest = 2 * (long_side * resolution % short_side);
  const bool up = twice_rest > short_side || (twice_rest == short_side && whole % 2 == 1);
  return whole + (up ? 1 : 0);
}
}  // namespace

Image resize_lanczos(const Image& image, int64_t width, int64_t height) {
  return resize_part(image, width, height, {.first = 0, .count = width},
                     {.first = 0, .count = height});
}

Image resize_and_centre_crop(const Image& image, int64_t resolution) {
  check(resolution > 0 && resolution <= 1 << 20, "a resolution in [1, 2^20]");
  const int64_t short_side = std::min(image.width, image.height);
  check(short_side > 0, "an image has pixels");
  const int64_t width = scaled_side(image.width, short_side, resolution);
  const int64_t height = scaled_side(image.height, short_side, resolution);
  return resize_part(image, width, height, {.first = (width - resolution) / 2, .count = resolution},
                     {.first = (height - resolution) / 2, .count = resolution});
}
}  // namespace trireme
