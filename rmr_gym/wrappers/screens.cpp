// Atari screens as small gray frames, of those strips alone that differ from the last ones.
//
// The sums of screens.py's Shrinker, in whole numbers: the same bytes. A strip is as many rows of a
// screen as become whole rows of a frame.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

// Products are rounded before they are added, as in numpy.
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif

struct Screens {
  int64_t count, height, width, channels;
  const uint8_t *shown;
  const uint8_t *grays;  // of each byte of one channel; null where it is the gray level
  uint8_t *last, *frames;
};

namespace {

constexpr int64_t ROWS = 210, COLUMNS = 160;

// Of how many parts of which pixels each smaller pixel is made; the same number of pixels for all.
struct Parts {
  int64_t target, most;
  std::vector<int32_t> first, weights;

  Parts(int64_t size, int64_t target)
      : target(target), most(std::min(size, (size - 1) / target + 2)), first(target),
        weights(most * target) {
    for (int64_t i = 0; i < target; ++i) {
      const int64_t begin = i * size, end = begin + size;
      first[i] = std::min(begin / target, size - most);
      for (int64_t part = 0, pixel = first[i]; part < most; ++part, ++pixel)
        weights[part * target + i] = std::max<int64_t>(
            0, std::min(end, (pixel + 1) * target) - std::max(begin, pixel * target));
    }
  }
};

void to_gray(const Screens &s, const uint8_t *row, int32_t *gray) {
  if (s.channels == 3) {
    for (int64_t x = 0; x < COLUMNS; ++x)
      gray[x] = int32_t(std::nearbyint(0.2989f * row[3 * x] + 0.5870f * row[3 * x + 1] +
                                       0.1140f * row[3 * x + 2]));
  } else if (s.grays) {
    for (int64_t x = 0; x < COLUMNS; ++x) gray[x] = s.grays[row[x]];
  } else {
    for (int64_t x = 0; x < COLUMNS; ++x) gray[x] = row[x];
  }
}

}  // namespace

extern "C" void shrink(const Screens *screens) {
  const Screens &s = *screens;
  const int64_t strips = std::gcd(ROWS, s.height), rows = ROWS / strips;
  const Parts down(rows, s.height / strips), across(COLUMNS, s.width);
  const int64_t bytes = rows * COLUMNS * s.channels;
  std::vector<int32_t> gray(rows * COLUMNS), totals(s.width);
  int32_t sums[COLUMNS];
  for (int64_t strip = 0; strip < s.count * strips; ++strip) {
    const uint8_t *shown = s.shown + strip * bytes;
    if (!std::memcmp(shown, s.last + strip * bytes, bytes)) continue;
    std::memcpy(s.last + strip * bytes, shown, bytes);
    for (int64_t row = 0; row < rows; ++row)
      to_gray(s, shown + row * COLUMNS * s.channels, &gray[row * COLUMNS]);
    for (int64_t line = 0; line < down.target; ++line) {
      std::fill(sums, sums + COLUMNS, 0);
      for (int64_t part = 0; part < down.most; ++part) {
        const int32_t weight = down.weights[part * down.target + line];
        const int32_t *from = &gray[(down.first[line] + part) * COLUMNS];
        for (int64_t x = 0; x < COLUMNS; ++x) sums[x] += weight * from[x];
      }
      std::fill(totals.begin(), totals.end(), 0);
      for (int64_t part = 0; part < across.most; ++part)
        for (int64_t i = 0; i < s.width; ++i)
          totals[i] += across.weights[part * s.width + i] * sums[across.first[i] + part];
      uint8_t *out = s.frames + (strip * down.target + line) * s.width;
      for (int64_t i = 0; i < s.width; ++i)
        out[i] = uint8_t(float(totals[i]) / float(rows * COLUMNS) + 0.5f);
    }
  }
}
