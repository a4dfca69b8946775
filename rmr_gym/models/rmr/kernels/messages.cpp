// Messages between all pairs of slots, forward and backward; the pairs are never stored.
//
//   first  = relu(receivers[i] + senders[j])      upper = gradient of the second layer, masked
//   second = relu(W2 first + b2)                  lower = W2^T upper, masked by the first layer
//   message = W3 second + b3                      (for max only; sum and mean aggregate `second`)
//
// A pair is (receiver row, sender row), rows counted over the whole batch. Pairs are handled in
// blocks of a few rows; the tiles [rows][width] of a block stay in the core's cache. The backward
// pass computes the tiles again. For max it visits only the pairs that were maximal somewhere.
//
// Widths are multiples of PAD: the caller pads with zeros. Products run on one of the units of
// units.hpp. The result does not depend on the number of threads: work is cut into fixed parts, and
// what the parts add up is added in their order.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "units.hpp"

// Filled in by the caller (see kernels/__init__.py); unused pointers are null.
struct Problem {
  int64_t batch, slots, width, outputs, threads, unit;
  const float *receivers, *senders;  // [batch*slots][width]
  const float *w2, *b2, *w3, *b3;    // [width][width], [width], [outputs][width], [outputs]
  float *out;                        // sum: [batch*slots][width]; max: [..][outputs]
  int32_t *indices;                  // max: [batch*slots][outputs], sender within its item
  const float *gradient;             // of out
  float *g_receivers, *g_senders;    // zeros
  float *g_w2, *g_b2, *g_w3;         // zeros, or null where the weights are frozen
};

namespace {

constexpr int GROUPS = 32;  // parts of a batch whose weight gradients are added up in order
constexpr int STRIPE = 64;  // receivers of one task of the forward pass

// ---- weights as right operands ----------------------------------------------------------------

// B(k, n) = w[k * k_stride + n * n_stride], in words.
template <class Unit>
Buffer<typename Unit::Word> packed(const float *w, int64_t length, int64_t columns,
                                   int64_t k_stride, int64_t n_stride) {
  auto words = allocate<typename Unit::Word>(length / Unit::VALUES * columns);
  for (int64_t k = 0; k < length; k += Unit::VALUES)
    for (int64_t n = 0; n < columns; n++)
      words[k / Unit::VALUES * columns + n] =
          Unit::word(w + k * k_stride + n * n_stride, k_stride);
  return words;
}

template <class Unit>
struct Weights {
  Buffer<typename Unit::Word> w2_forward, w2_backward, w3_forward;

  explicit Weights(const Problem &p)
      : w2_forward(packed<Unit>(p.w2, p.width, p.width, 1, p.width)),
        w2_backward(packed<Unit>(p.w2, p.width, p.width, p.width, 1)) {
    if (p.w3) w3_forward = packed<Unit>(p.w3, p.width, p.outputs, 1, p.width);
  }
};

// Where the gradients of the weights are added up.
struct WeightGradients {
  float *w2, *b2, *w3;
};

// ---- one block of pairs ------------------------------------------------------------------------

// What happens to a tile of a block's rows; a tile of one receiver is handled at once.

INLINE inline void add_rows(float *total, const Tile &rows) {
  for (int v = 0; v < TILE_COLUMNS; v++) {
    Vector sum = rows[0][v];
#pragma GCC unroll 8
    for (int r = 1; r < TILE_ROWS; r++) sum += rows[r][v];
    add_at(total + v * LANES, sum);
  }
}

// The first of equal messages stays; NaN is larger than anything and stays too.
INLINE inline void keep_largest(Vector &best, Integers &index, Vector value, int32_t slot) {
  const Integers stays = (value <= best) | (best != best);
  best = stays ? best : value;
  index = stays ? index : Integers{} + slot;
}

template <class Unit>
class Block {
  using Word = typename Unit::Word;
  static constexpr int BLOCK = Unit::BLOCK, COLUMNS = TILE_COLUMNS * LANES;

 public:
  Block(const Problem &problem, const Weights<Unit> &weights)
      : p(problem),
        width(problem.width),
        words(problem.width / Unit::VALUES),
        outputs(problem.outputs),
        weights(weights),
        first(allocate<Word>(BLOCK * words)),
        second(allocate<Word>(BLOCK * words)),
        upper(allocate<Word>(BLOCK * words)),
        left(allocate<Word>(BLOCK * words)),
        right(allocate<Word>(BLOCK * words)),
        hidden(allocate<float>(BLOCK * width)),
        above(allocate<float>(BLOCK * width)),
        zeros(allocate<float>(width)),
        row_of_sender(p.slots) {}

  // Sums of the second layer over all senders, for the receivers [begin, end).
  void sum(int64_t begin, int64_t end) {
    every_pair(begin, end, [&] {
      hidden_layers([this, out = p.out](int64_t m, int64_t n, Tile &tile) INLINE {
        positive(tile);
        add_to_receivers(out, m, n, tile);
      });
    });
  }

  void sum_backward(int64_t begin, int64_t end, WeightGradients gradients) {
    every_pair(begin, end, [&] {
      hidden_layers([=, gradient = p.gradient, nothing = zeros.get(), target = upper.get()](
                        int64_t m, int64_t n, Tile &tile) INLINE {
        const float *source = whole(m) ? gradient + receiver[m] : nullptr;
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; r++) {
          const float *above = source         ? source
                               : m + r < rows ? gradient + receiver[m + r]
                                              : nothing;
#pragma GCC unroll 8
          for (int v = 0; v < TILE_COLUMNS; v++)
            tile[r][v] = masked(load(above + n + v * LANES), tile[r][v]);
          Unit::put(target + (m + r) * words, n, tile[r]);
        }
        if (gradients.b2) add_rows(gradients.b2 + n, tile);
      });
      through_hidden_layers(gradients);
    });
  }

  // Maximal messages and their senders, for the receivers [begin, end).
  void max(int64_t begin, int64_t end) {
    std::fill(p.out + begin * p.outputs, p.out + end * p.outputs,
              -std::numeric_limits<float>::infinity());
    every_pair(begin, end, [&] {
      hidden_layers([=, target = second.get()](int64_t m, int64_t n, Tile &tile) INLINE {
        positive(tile);
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; r++) Unit::put(target + (m + r) * words, n, tile[r]);
      });
      layer(second.get(), weights.w3_forward.get(), p.b3, p.outputs,
            [this, out = p.out, indices = p.indices](int64_t m, int64_t d, Tile &tile) INLINE {
              if (whole(m)) return keep<TILE_ROWS>(out, indices, m, d, tile);
#pragma GCC unroll 8
              for (int r = 0; r < TILE_ROWS; r++)
                if (m + r < rows) keep<1>(out, indices, m + r, d, tile + r);
            });
    });
  }

  // Every output of a receiver sends its gradient to one sender; outputs with the same sender
  // share a row of the block.
  void max_backward(int64_t begin, int64_t end, WeightGradients gradients) {
    const auto flush = [&] {
      hidden_layers([&](int64_t m, int64_t n, Tile &tile) INLINE {
        positive(tile);
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 8
          for (int v = 0; v < TILE_COLUMNS; v++)
            store(hidden.get() + (m + r) * width + n + v * LANES, tile[r][v]);
      });
      gradient_of_messages(gradients);
      through_hidden_layers(gradients);
      clear();
    };
    for (int64_t i = begin; i < end; i++) {
      std::fill(row_of_sender.begin(), row_of_sender.end(), -1);
      for (int64_t d = 0; d < p.outputs; d++) {
        int &row = row_of_sender[p.indices[i * p.outputs + d]];
        if (row < 0 && rows == BLOCK) {
          flush();
          std::fill(row_of_sender.begin(), row_of_sender.end(), -1);
        }
        if (row < 0) {
          row = rows;
          append(i, p.indices[i * p.outputs + d], 1);
        }
        entries.push_back({row, d, p.gradient[i * p.outputs + d]});
      }
    }
    if (rows) flush();
  }

 private:
  struct Entry {
    int64_t row, output;
    float gradient;
  };

  // ---- which pairs

  template <class Visit>
  void every_pair(int64_t begin, int64_t end, Visit visit) {
    for (int64_t i = begin; i < end; i++)
      for (int64_t j = 0; j < p.slots;) {
        j += append(i, j, std::min<int64_t>(p.slots - j, BLOCK - rows));
        if (rows < BLOCK) continue;
        visit();
        clear();
      }
    if (rows) visit();
    clear();
  }

  // Pairs of a receiver with `count` senders from slot `from` of its item on.
  int64_t append(int64_t i, int64_t from, int count) {
    const int64_t origin = (i - i % p.slots + from) * width;
    for (int k = 0; k < count; k++) {
      slot[rows + k] = from + k;
      sender[rows + k] = origin + k * width;
      receiver[rows + k] = i * width;
    }
    rows += count;
    return count;
  }

  void clear() {
    rows = 0;
    entries.clear();
  }

  int64_t padded_rows() const { return (rows + PAD - 1) / PAD * PAD; }

  // Whether all rows of a tile are pairs of one receiver.
  INLINE bool whole(int64_t m) const {
    return m + TILE_ROWS <= rows && receiver[m] == receiver[m + TILE_ROWS - 1];
  }

  // ---- layers

  INLINE static void positive(Tile &tile) {
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 8
      for (int v = 0; v < TILE_COLUMNS; v++) tile[r][v] = relu(tile[r][v]);
  }

  // Add those rows of a tile that are pairs to rows of their receivers.
  INLINE void add_to_receivers(float *target, int64_t m, int64_t n, const Tile &tile) const {
    if (whole(m)) return add_rows(target + receiver[m] + n, tile);
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 8
      for (int v = 0; v < TILE_COLUMNS; v++)
        if (m + r < rows) add_at(target + receiver[m + r] + n + v * LANES, tile[r][v]);
  }

  // The largest of some rows of one receiver, and of what is there.
  template <int ROWS>
  INLINE void keep(float *out, int32_t *indices, int64_t m, int64_t d,
                   const Vector (*values)[TILE_COLUMNS]) const {
    const int64_t place = receiver[m] / width * outputs + d;
#pragma GCC unroll 8
    for (int v = 0; v < TILE_COLUMNS; v++) {
      Vector best = load(out + place + v * LANES);
      Integers index = load<Integers>(indices + place + v * LANES);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++) keep_largest(best, index, values[r][v], slot[m + r]);
      store(out + place + v * LANES, best);
      store(indices + place + v * LANES, index);
    }
  }

  // Mask a row of the gradient of the first layer, and add it to that of its sender.
  INLINE static void to_sender(const float *others, float *g_others, int64_t place,
                               const Vector *mine, Vector *values) {
#pragma GCC unroll 8
    for (int v = 0; v < TILE_COLUMNS; v++) {
      values[v] = masked(values[v], mine[v] + load(others + place + v * LANES));
      add_at(g_others + place + v * LANES, values[v]);
    }
  }

  template <class Use>
  INLINE void layer(const Word *input, const Word *w, const float *bias, int64_t columns,
             const Use &use) {
    unit.product({input, words, 1, w, bias, 0, padded_rows(), columns, words}, use);
  }

  template <class Use>
  INLINE void hidden_layers(const Use &use) {
    const float *const own = p.receivers, *const others = p.senders;
    Word *const target = first.get();
    const auto add = [&](int64_t r, int64_t n, const Vector *mine) INLINE {
      Vector values[TILE_COLUMNS];
      for (int v = 0; v < TILE_COLUMNS; v++)
        values[v] = relu(mine[v] + load(others + sender[r] + n + v * LANES));
      Unit::put(target + r * words, n, values);
    };
    for (int64_t n = 0; n < width; n += COLUMNS)
      for (int64_t m = 0; m < rows;) {
        const int64_t end = whole(m) ? m + TILE_ROWS : m + 1;
        Vector mine[TILE_COLUMNS];
        for (int v = 0; v < TILE_COLUMNS; v++) mine[v] = load(own + receiver[m] + n + v * LANES);
        for (; m < end; m++) add(m, n, mine);
      }
    clear_padding(target);
    layer(target, weights.w2_forward.get(), p.b2, width, use);
  }

  void clear_padding(Word *tile) const {
    std::fill(tile + rows * words, tile + padded_rows() * words, Word{});
  }

  // From the gradient of the messages to that of the second layer, in `upper`.
  void gradient_of_messages(WeightGradients gradients) {
    float *const target = above.get();
    std::fill(target, target + rows * width, 0.0f);
    for (const Entry &e : entries) {
      add_scaled(target + e.row * width, e.gradient, p.w3 + e.output * width, width);
      if (gradients.w3)
        add_scaled(gradients.w3 + e.output * width, e.gradient, hidden.get() + e.row * width,
                   width);
    }
    for (int64_t n = 0; n < width; n += COLUMNS)
      for (int r = 0; r < rows; r++) {
        Vector values[TILE_COLUMNS];
        for (int v = 0; v < TILE_COLUMNS; v++) {
          const int64_t place = r * width + n + v * LANES;
          values[v] = masked(load(target + place), load(hidden.get() + place));
          if (gradients.b2) add_at(gradients.b2 + n + v * LANES, values[v]);
        }
        Unit::put(upper.get() + r * words, n, values);
      }
    clear_padding(upper.get());
  }

  // From the masked gradient of the second layer in `upper` to all that lies below.
  void through_hidden_layers(WeightGradients gradients) {
    layer(upper.get(), weights.w2_backward.get(), zeros.get(), width,
          [this, own = p.receivers, others = p.senders, g_own = p.g_receivers,
           g_others = p.g_senders](int64_t m, int64_t n, Tile &tile) INLINE {
            if (whole(m)) {
              Vector mine[TILE_COLUMNS];
              for (int v = 0; v < TILE_COLUMNS; v++)
                mine[v] = load(own + receiver[m] + n + v * LANES);
#pragma GCC unroll 8
              for (int r = 0; r < TILE_ROWS; r++)
                to_sender(others, g_others, sender[m + r] + n, mine, tile[r]);
              return add_rows(g_own + receiver[m] + n, tile);
            }
#pragma GCC unroll 8
            for (int r = 0; r < TILE_ROWS; r++) {
              if (m + r >= rows) continue;
              const int64_t place = receiver[m + r] + n;
              Vector mine[TILE_COLUMNS];
              for (int v = 0; v < TILE_COLUMNS; v++) mine[v] = load(own + place + v * LANES);
              to_sender(others, g_others, sender[m + r] + n, mine, tile[r]);
              for (int v = 0; v < TILE_COLUMNS; v++) add_at(g_own + place + v * LANES, tile[r][v]);
            }
          });
    if (gradients.w2) weight_gradients(gradients);
  }

  void weight_gradients(WeightGradients gradients) {
    const Word *a = Unit::along_pairs(upper.get(), left.get(), padded_rows(), width);
    const Word *b = Unit::along_pairs(first.get(), right.get(), padded_rows(), width);
    unit.product({a, 1, width, b, gradients.w2, width, width, width, padded_rows() / Unit::VALUES},
                 [width = width, target = gradients.w2](int64_t m, int64_t n, Tile &tile) INLINE {
#pragma GCC unroll 8
                   for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 8
                     for (int v = 0; v < TILE_COLUMNS; v++)
                       store(target + (m + r) * width + n + v * LANES, tile[r][v]);
                 });
  }

  const Problem &p;
  const int64_t width, words, outputs;
  const Weights<Unit> &weights;
  Unit unit;
  int rows = 0;
  int64_t sender[BLOCK], receiver[BLOCK];  // where their rows begin
  int32_t slot[BLOCK];                     // the sender's number within its item
  Buffer<Word> first, second, upper, left, right;
  Buffer<float> hidden, above, zeros;
  std::vector<int> row_of_sender;
  std::vector<Entry> entries;
};

// ---- threads -----------------------------------------------------------------------------------

// Run task(number, block) for every number; each thread has its own block.
template <class Unit, class Task>
void run(const Problem &p, int64_t tasks, Task task) {
  const Weights<Unit> weights(p);
  in_threads(p.threads, tasks, [&] { return Block<Unit>(p, weights); }, task);
}

template <class Unit, class Step>
void forward(const Problem &p, Step step) {
  const int64_t receivers = p.batch * p.slots;
  run<Unit>(p, (receivers + STRIPE - 1) / STRIPE, [&](int64_t number, Block<Unit> &block) {
    const int64_t begin = number * STRIPE, end = begin + STRIPE;
    (block.*step)(begin, std::min(end, receivers));
  });
}

// Groups of whole items, so that no two tasks write to the same sender.
template <class Unit, class Step>
void backward(const Problem &p, Step step) {
  const int64_t items = (p.batch + GROUPS - 1) / GROUPS, groups = (p.batch + items - 1) / items;
  const int64_t square = p.width * p.width, outer = p.g_w3 ? p.outputs * p.width : 0;
  const int64_t total = p.g_w2 ? square + p.width + outer : 0;
  const auto sums = allocate<float>(groups * total);
  run<Unit>(p, groups, [&](int64_t number, Block<Unit> &block) {
    float *own = sums.get() + number * total;
    WeightGradients gradients{nullptr, nullptr, nullptr};
    if (p.g_w2) gradients = {own, own + square, p.g_w3 ? own + square + p.width : nullptr};
    const int64_t begin = number * items, end = begin + items;
    (block.*step)(begin * p.slots, std::min(end, p.batch) * p.slots, gradients);
  });
  for (int64_t number = 0; total && number < groups; number++) {
    const float *own = sums.get() + number * total;
    add_to(p.g_w2, own, square);
    add_to(p.g_b2, own + square, p.width);
    if (outer) add_to(p.g_w3, own + square + p.width, outer);
  }
}

template <class Unit>
struct Sum {
  static void run(const Problem &p) { forward<Unit>(p, &Block<Unit>::sum); }
};
template <class Unit>
struct SumBackward {
  static void run(const Problem &p) { backward<Unit>(p, &Block<Unit>::sum_backward); }
};
template <class Unit>
struct Max {
  static void run(const Problem &p) { forward<Unit>(p, &Block<Unit>::max); }
};
template <class Unit>
struct MaxBackward {
  static void run(const Problem &p) { backward<Unit>(p, &Block<Unit>::max_backward); }
};

}  // namespace

extern "C" {

int has_unit(int64_t unit) { return available(unit); }

// The unit whose bfloat16 products are faster than float32, or FLOAT32.
int bfloat16_unit() {
  if (available(AMX)) return AMX;
#if defined(__AVX512BF16__)
  if (Bfloat16::fast()) return AVX512_BF16;
#endif
  return FLOAT32;
}

int hidden_sum(const Problem *p) { return p->batch ? on_unit<Sum>(*p) : DONE; }
int hidden_sum_backward(const Problem *p) { return p->batch ? on_unit<SumBackward>(*p) : DONE; }
int max_message(const Problem *p) { return p->batch ? on_unit<Max>(*p) : DONE; }
int max_message_backward(const Problem *p) { return p->batch ? on_unit<MaxBackward>(*p) : DONE; }
}
