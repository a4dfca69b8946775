// What the message passing computes with: vectors, buffers, and three units that multiply matrices.
//
// Vectors use the extension of GCC and Clang, so that the same lines serve AVX-512, AVX2 and
// others; only bfloat16 needs the processor's own instructions.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#if defined(__AVX512F__)
#include <cpuid.h>
#include <immintrin.h>
#endif
#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#define HAS_AMX 1
#endif

namespace {

constexpr int PAD = 32;  // widths and rows of a product are multiples of this

// ---- vectors -------------------------------------------------------------------------------

#if defined(__AVX512F__)
constexpr int LANES = 16, TILE_ROWS = 8;
#elif defined(__AVX__)
constexpr int LANES = 8, TILE_ROWS = 4;
#else
constexpr int LANES = 4, TILE_ROWS = 4;
#endif
constexpr int TILE_COLUMNS = 2;  // vectors

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));

template <class V = Vector, class T>
inline V load(const T *source) {
  V value;
  std::memcpy(&value, source, sizeof value);
  return value;
}

template <class V, class T>
inline void store(T *target, V value) {
  std::memcpy(target, &value, sizeof value);
}

// As torch.relu: NaN stays NaN.
inline Vector relu(Vector x) { return x < Vector{} ? Vector{} : x; }

// The gradient of relu: zero where its result was zero.
inline Vector masked(Vector gradient, Vector result) {
  return result <= Vector{} ? Vector{} : gradient;
}

inline void add_to(float *target, const float *source, int64_t count) {
  for (int64_t k = 0; k < count; k += LANES) store(target + k, load(target + k) + load(source + k));
}

inline void add_scaled(float *target, float factor, const float *source, int64_t count) {
  for (int64_t k = 0; k < count; k += LANES)
    store(target + k, load(target + k) + factor * load(source + k));
}

// ---- memory --------------------------------------------------------------------------------

struct Free {
  void operator()(void *memory) const { std::free(memory); }
};
template <class T>
using Buffer = std::unique_ptr<T[], Free>;

template <class T>
Buffer<T> allocate(int64_t count) {
  const size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
  void *memory = std::aligned_alloc(64, bytes ? bytes : 64);
  if (!memory) throw std::bad_alloc();
  std::memset(memory, 0, bytes);
  return Buffer<T>(static_cast<T *>(memory));
}

// ---- units: C = init + A B, optionally relu ---------------------------------------------------
//
// A "word" is what a unit multiplies at once along the summed axis: one float, or two bfloat16.
// BLOCK is the number of pairs that are best handled together.

template <class Word>
struct Product {
  const Word *a;       // A(m, k) = a[m * row + k * step]
  int64_t row, step;
  const Word *b;       // B(k, n) = b[k * columns + n]
  const float *init;   // init(m, n) = init[m * init_row + n]: a bias with 0, c itself with columns
  int64_t init_row;
  float *c;            // [rows][columns]
  int64_t rows, columns, words;
};

template <class Unit, bool RELU>
inline void product_tile(const Product<typename Unit::Word> p, int64_t m, int64_t n) {
  Vector sum[TILE_ROWS][TILE_COLUMNS];
  const float *init = p.init + m * p.init_row + n;
  for (int r = 0; r < TILE_ROWS; r++)
    for (int v = 0; v < TILE_COLUMNS; v++) sum[r][v] = load(init + r * p.init_row + v * LANES);
  const auto *a = p.a + m * p.row;
  const auto *b = p.b + n;
  const auto *const end = b + p.words * p.columns;
  do {
    for (int r = 0; r < TILE_ROWS; r++)
      for (int v = 0; v < TILE_COLUMNS; v++)
        sum[r][v] = Unit::multiply_add(sum[r][v], a[r * p.row], b + v * LANES);
    a += p.step;
    b += p.columns;
  } while (b != end);
  float *c = p.c + m * p.columns + n;
  for (int r = 0; r < TILE_ROWS; r++)
    for (int v = 0; v < TILE_COLUMNS; v++)
      store(c + r * p.columns + v * LANES, RELU ? relu(sum[r][v]) : sum[r][v]);
}

template <class Unit, bool RELU>
void product_in_registers(const Product<typename Unit::Word> &p) {
  for (int64_t n = 0; n < p.columns; n += TILE_COLUMNS * LANES)
    for (int64_t m = 0; m < p.rows; m += TILE_ROWS) product_tile<Unit, RELU>(p, m, n);
}

struct Float32 {
  using Word = float;
  static constexpr int VALUES = 1, BLOCK = 64;

  static Word word(const float *values, int64_t) { return *values; }
  static Vector multiply_add(Vector sum, Word a, const Word *b) { return sum + a * load(b); }
  // Tiles are their own operands.
  static const Word *along_rows(const float *tile, Word *, int64_t, int64_t) { return tile; }
  static const Word *along_pairs(const float *tile, Word *, int64_t, int64_t) { return tile; }

  template <bool RELU>
  void product(const Product<Word> &p) {
    product_in_registers<Float32, RELU>(p);
  }
};

#if defined(__AVX512BF16__)
struct Bfloat16 {
  using Word = uint32_t;
  static constexpr int VALUES = 2, BLOCK = 32;

  // AMD's runs at twice the speed of float32, Intel's at half.
  static bool fast() {
    unsigned highest, vendor, rest[2];
    return __get_cpuid(0, &highest, &vendor, &rest[0], &rest[1]) && vendor == signature_AMD_ebx;
  }
  static uint32_t rounded(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (value != value) return bits >> 16 | 0x40;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  }
  static Word word(const float *values, int64_t stride) {
    return rounded(values[0]) | rounded(values[stride]) << 16;
  }
  static Vector multiply_add(Vector sum, Word a, const Word *b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(a), (__m512bh)_mm512_loadu_si512(b));
  }
  // Two neighbours in a row make a word: [rows][width / 2].
  static const Word *along_rows(const float *tile, Word *words, int64_t rows, int64_t width) {
    for (int64_t k = 0; k < rows * width; k += 32)
      store(words + k / 2, _mm512_cvtne2ps_pbh(load(tile + k + 16), load(tile + k)));
    return words;
  }
  // Two pairs below each other make a word: [rows / 2][width].
  static const Word *along_pairs(const float *tile, Word *words, int64_t rows, int64_t width) {
    alignas(64) uint16_t order[32];
    for (int k = 0; k < 32; k++) order[k] = k / 2 + k % 2 * 16;
    const __m512i interleave = _mm512_load_si512(order);
    for (int64_t p = 0; p < rows; p += 2)
      for (int64_t k = 0; k < width; k += 16) {
        const float *values = tile + p * width + k;
        const __m512bh both = _mm512_cvtne2ps_pbh(load(values + width), load(values));
        store(words + p / 2 * width + k, _mm512_permutexvar_epi16(interleave, (__m512i)both));
      }
    return words;
  }

  template <bool RELU>
  void product(const Product<Word> &p) {
    product_in_registers<Bfloat16, RELU>(p);
  }
};
#endif

#if HAS_AMX
// The matrix unit of recent Xeons: tiles of 16 rows of 64 bytes, C += A B in one instruction.
struct Amx : Bfloat16 {
  Buffer<Word> transposed;
  int64_t capacity = 0;

  Amx() {
    struct alignas(64) {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } configuration;
    _tile_loadconfig(&configuration);
  }
  ~Amx() { _tile_release(); }

  // Linux lends the tile registers only to processes that ask.
  static bool available() {
    constexpr int REQUEST = 0x1023, TILE_DATA = 18;
    static const bool granted = syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
    return granted;
  }

  template <bool RELU>
  void product(Product<Word> p) {
    if (p.step != 1) {
      p.a = transpose(p.a, p.step, p.rows, p.words);
      p.row = p.words;
    }
    for (int64_t m = 0; m < p.rows; m += 32)
      for (int64_t n = 0; n < p.columns; n += 32) tile(p, m, n);
    for (int64_t k = 0; RELU && k < p.rows * p.columns; k += LANES)
      store(p.c + k, relu(load(p.c + k)));
  }

 private:
  static void tile(const Product<Word> &p, int64_t m, int64_t n) {
    const float *init = p.init + m * p.init_row + n;
    float *c = p.c + m * p.columns + n;
    const int64_t wide = 4 * p.columns;
    _tile_loadd(0, init, 4 * p.init_row);
    _tile_loadd(1, init + 16, 4 * p.init_row);
    _tile_loadd(2, init + 16 * p.init_row, 4 * p.init_row);
    _tile_loadd(3, init + 16 * p.init_row + 16, 4 * p.init_row);
    for (int64_t k = 0; k < p.words; k += 16) {
      const Word *a = p.a + m * p.row + k, *b = p.b + k * p.columns + n;
      _tile_loadd(4, a, 4 * p.row);
      _tile_loadd(5, a + 16 * p.row, 4 * p.row);
      _tile_loadd(6, b, wide);
      _tile_loadd(7, b + 16, wide);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, wide);
    _tile_stored(1, c + 16, wide);
    _tile_stored(2, c + 16 * p.columns, wide);
    _tile_stored(3, c + 16 * p.columns + 16, wide);
  }

  // [words][step] to [rows][words], in squares of 16: swap halves of rows at distances 1, 2, 4, 8.
  const Word *transpose(const Word *a, int64_t step, int64_t rows, int64_t words) {
    if (capacity < rows * words) transposed = allocate<Word>(capacity = rows * words);
    for (int64_t k = 0; k < words; k += 16)
      for (int64_t m = 0; m < rows; m += 16) {
        __m512i square[16];
        for (int r = 0; r < 16; r++) square[r] = _mm512_loadu_si512(a + (k + r) * step + m);
        swap_halves<1>(square);
        swap_halves<2>(square);
        swap_halves<4>(square);
        swap_halves<8>(square);
        for (int r = 0; r < 16; r++)
          _mm512_storeu_si512(transposed.get() + (m + r) * words + k, square[r]);
      }
    return transposed.get();
  }

  template <int DISTANCE>
  static void swap_halves(__m512i *square) {
    Integers upper, lower;
    for (int k = 0; k < 16; k++) {
      upper[k] = k & DISTANCE ? 16 + k - DISTANCE : k;
      lower[k] = k & DISTANCE ? 16 + k : k + DISTANCE;
    }
    for (int r = 0; r < 16; r++) {
      if (r & DISTANCE) continue;
      const __m512i one = square[r], two = square[r + DISTANCE];
      square[r] = _mm512_permutex2var_epi32(one, (__m512i)upper, two);
      square[r + DISTANCE] = _mm512_permutex2var_epi32(one, (__m512i)lower, two);
    }
  }
};
#endif

}  // namespace
