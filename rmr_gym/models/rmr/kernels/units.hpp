// What the message passing computes with: vectors, buffers, and three units that multiply matrices.
//
// Vectors use the extension of GCC and Clang, so that the same lines serve AVX-512, AVX2 and
// others; only bfloat16 needs the processor's own instructions.

#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

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
constexpr int STEPS = 4;  // words multiplied between two branches; products have multiples of it

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

typedef Vector Tile[TILE_ROWS][TILE_COLUMNS];

// As torch.relu: NaN stays NaN.
inline Vector relu(Vector x) {
#if defined(__AVX512F__)
  return (Vector)_mm512_max_ps(_mm512_setzero_ps(), (__m512)x);
#else
  return x < Vector{} ? Vector{} : x;
#endif
}

// The gradient of relu: zero where its result was zero.
inline Vector masked(Vector gradient, Vector result) {
  return result <= Vector{} ? Vector{} : gradient;
}

template <class V>
inline void add_at(float *target, V value) {
  store(target, load(target) + value);
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

// ---- units: init + A B, handed on tile by tile ---------------------------------------------------
//
// A "word" is what a unit multiplies at once along the summed axis: one float, or two bfloat16.
// BLOCK is the number of pairs that are best handled together; the rows of A are a multiple of ROWS. What becomes of a tile of the result
// is said by a function of its place and its values, so that it need not be stored first.

#define INLINE __attribute__((always_inline))

template <class Word>
struct Product {
  const Word *a;       // A(m, k) = a[m * row + k * step]
  int64_t row, step;
  const Word *b;       // B(k, n) = b[k * columns + n]
  const float *init;   // init(m, n) = init[m * init_row + n]; a bias with 0
  int64_t init_row;
  int64_t rows, columns, words;
};

template <class Unit, class Use>
INLINE inline void product_tile(const Product<typename Unit::Word> &p, int64_t m, int64_t n,
                                const Use &use) {
  Tile sum;
  const float *init = p.init + m * p.init_row + n;
#pragma GCC unroll 8
  for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 8
    for (int v = 0; v < TILE_COLUMNS; v++) sum[r][v] = load(init + r * p.init_row + v * LANES);
  const auto *a = p.a + m * p.row;
  const auto *b = p.b + n;
  const int64_t row = p.row, step = p.step, columns = p.columns;
  const auto *const end = b + p.words * columns;
  do {
#pragma GCC unroll 8
    for (int k = 0; k < STEPS; k++) {
#pragma GCC unroll 8
      for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 8
        for (int v = 0; v < TILE_COLUMNS; v++)
          sum[r][v] = Unit::multiply_add(sum[r][v], a[r * row], b + v * LANES);
      a += step;
      b += columns;
    }
  } while (b != end);
  use(m, n, sum);
}

template <class Unit, class Use>
INLINE inline void product_in_registers(const Product<typename Unit::Word> &p, const Use &use) {
  for (int64_t n = 0; n < p.columns; n += TILE_COLUMNS * LANES)
    for (int64_t m = 0; m < p.rows; m += TILE_ROWS) product_tile<Unit>(p, m, n, use);
}

struct Float32 {
  using Word = float;
  static constexpr int VALUES = 1, BLOCK = 64, ROWS = 8;

  static Word word(const float *values, int64_t) { return *values; }
  INLINE static Vector multiply_add(Vector sum, Word a, const Word *b) { return sum + a * load(b); }
  // Neighbours of a row, from column n on, as words.
  INLINE static void put(Word *row, int64_t n, const Vector *values) {
    for (int v = 0; v < TILE_COLUMNS; v++) store(row + n + v * LANES, values[v]);
  }
  INLINE static void get(const Word *row, int64_t n, Vector *values) {
    for (int v = 0; v < TILE_COLUMNS; v++) values[v] = load(row + n + v * LANES);
  }
  // Floats are words in every direction.
  static const Word *along_pairs(const Word *rows, Word *, int64_t, int64_t) { return rows; }

  template <class Use>
  INLINE void product(const Product<Word> &p, const Use &use) {
    product_in_registers<Float32>(p, use);
  }
};

#if defined(__AVX512BF16__)
struct Bfloat16 {
  using Word = uint32_t;
  static constexpr int VALUES = 2, BLOCK = 64, ROWS = 8;

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
  INLINE static Vector multiply_add(Vector sum, Word a, const Word *b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(a), (__m512bh)_mm512_loadu_si512(b));
  }
  // Neighbours of a row, from column n on: two make a word.
  INLINE static void put(Word *row, int64_t n, const Vector *values) {
    store(row + n / 2, _mm512_cvtne2ps_pbh((__m512)values[1], (__m512)values[0]));
  }
  INLINE static void get(const Word *row, int64_t n, Vector *values) {
    for (int v = 0; v < TILE_COLUMNS; v++) {
      const __m512i wide = _mm512_cvtepu16_epi32(load<__m256i>(row + n / 2 + v * LANES / 2));
      values[v] = (Vector)_mm512_slli_epi32(wide, 16);
    }
  }
  // From two neighbours of a row a word to two pairs below each other: [rows / 2][width].
  static const Word *along_pairs(const Word *rows, Word *words, int64_t count, int64_t width) {
    alignas(64) uint16_t order[2][32];
    for (int k = 0; k < 64; k++) order[k / 32][k % 32] = k / 2 + k % 2 * 32;
    const __m512i left = _mm512_load_si512(order[0]), right = _mm512_load_si512(order[1]);
    for (int64_t p = 0; p < count; p += 2)
      for (int64_t k = 0; k < width; k += 32) {
        const Word *source = rows + (p * width + k) / 2;
        const __m512i one = _mm512_loadu_si512(source);
        const __m512i two = _mm512_loadu_si512(source + width / 2);
        store(words + p / 2 * width + k, _mm512_permutex2var_epi16(one, left, two));
        store(words + p / 2 * width + k + 16, _mm512_permutex2var_epi16(one, right, two));
      }
    return words;
  }

  template <class Use>
  INLINE void product(const Product<Word> &p, const Use &use) {
    product_in_registers<Bfloat16>(p, use);
  }
};
#endif

#if HAS_AMX
// The matrix unit of recent Xeons: tiles of 16 rows of 64 bytes, C += A B in one instruction.
struct Amx : Bfloat16 {
  static constexpr int ROWS = 32;
  Buffer<Word> transposed;
  Buffer<float> result;
  int64_t capacity = 0, room = 0;

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

  template <class Use>
  void product(Product<Word> p, const Use &use) {
    if (p.step != 1) {
      p.a = transpose(p.a, p.step, p.rows, p.words);
      p.row = p.words;
    }
    if (room < p.rows * p.columns) result = allocate<float>(room = p.rows * p.columns);
    for (int64_t m = 0; m < p.rows; m += 32)
      for (int64_t n = 0; n < p.columns; n += 32) tile(p, m, n);
    for (int64_t m = 0; m < p.rows; m += TILE_ROWS)
      for (int64_t n = 0; n < p.columns; n += TILE_COLUMNS * LANES) {
        Tile sum;
        const float *c = result.get() + m * p.columns + n;
        for (int r = 0; r < TILE_ROWS; r++)
          for (int v = 0; v < TILE_COLUMNS; v++) sum[r][v] = load(c + r * p.columns + v * LANES);
        use(m, n, sum);
      }
  }

 private:
  void tile(const Product<Word> &p, int64_t m, int64_t n) {
    const float *init = p.init + m * p.init_row + n;
    float *c = result.get() + m * p.columns + n;
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

// ---- threads -----------------------------------------------------------------------------------

// Run task(number, state) for every number; each thread makes a state of its own.
template <class Make, class Task>
void in_threads(int64_t count, int64_t tasks, const Make &make, const Task &task) {
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  const auto work = [&] {
    try {
      auto state = make();
      for (int64_t number; (number = next++) < tasks;) task(number, state);
    } catch (...) {
      failed = true;
    }
  };
  std::vector<std::thread> threads;
  try {
    while (int64_t(threads.size()) + 1 < count && int64_t(threads.size()) + 1 < tasks)
      threads.emplace_back(work);
  } catch (const std::system_error &) {
    // The system lends no more threads: those that there are do the work.
  }
  work();
  for (auto &thread : threads) thread.join();
  if (failed) throw std::bad_alloc();
}

// ---- which unit --------------------------------------------------------------------------------

enum UnitNumber : int64_t { FLOAT32, AVX512_BF16, AMX };

bool available(int64_t unit) {
#if HAS_AMX
  if (unit == AMX) return Amx::available();
#endif
#if defined(__AVX512BF16__)
  if (unit == AVX512_BF16) return true;
#endif
  return unit == FLOAT32;
}

enum Outcome { DONE, OUT_OF_MEMORY, NO_SUCH_UNIT };

// Pass<unit>::run(problem), if the processor has the unit that the problem names.
template <template <class> class Pass, class Problem>
Outcome on_unit(const Problem &p) {
  if (!available(p.unit)) return NO_SUCH_UNIT;
  try {
#if HAS_AMX
    if (p.unit == AMX) Pass<Amx>::run(p);
#endif
#if defined(__AVX512BF16__)
    if (p.unit == AVX512_BF16) Pass<Bfloat16>::run(p);
#endif
    if (p.unit == FLOAT32) Pass<Float32>::run(p);
  } catch (const std::bad_alloc &) {
    return OUT_OF_MEMORY;
  }
  return DONE;
}

}  // namespace
