// The convolutional encoder with a map a slot, forward and backward.
//
//   image = (pixels - mean) / deviation           y[l] = relu(W[l] patches(y[l - 1]) + b[l]), l = 1..
//   maps  = W[slots] y[last] + b[slots]           latents = W[project] maps + b[project]
//
// Convolutions are products of patches and weights. A few frames go through all layers before the
// next, so that patches and gradients stay in the core's cache; what the layers gave is kept for the
// backward pass, which makes the patches again. Channels lie next to each other, as in patches.
//
// Channels of a layer and entries of a patch are multiples of PAD; all other widths are padded with
// zeros to such, rows of products to multiples of ROWS. Products run on one of the units of units.hpp. The result does not depend on the number of threads: frames
// are cut into fixed parts, and what the parts add up is added in their order.

#include <algorithm>
#include <vector>

#include "units.hpp"

// Filled in by the caller (see kernels/__init__.py); unused pointers are null.
struct Problem {
  int64_t frames, height, width, layers, slots, maps, dim, threads, unit;
  const int64_t *trunk;             // [layers][channels, kernel, stride]
  const uint8_t *pixels;            // [frames][height][width]
  const float *mean, *deviation;    // [height][width], [1]
  const float *weights;             // of each layer, of the slots, of the projection: weight, bias
  void *kept;                       // layers' results, as many bytes as kept_bytes says
  float *out;                       // [frames][slots][dim]
  const float *gradient;            // of out
  float *g_weights;                 // zeros
};

namespace {

constexpr int PARTS = 8;      // parts of a batch whose weight gradients are added up in order
constexpr int PATCHES = 1600; // about so many patches of the first layer go through at once

int64_t up(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

// ---- sizes -------------------------------------------------------------------------------------

// A convolution of `channels` maps of rows x columns into `outputs` maps, without padding.
struct Layer {
  int64_t rows, columns, channels, outputs, kernel, stride;
  int64_t out_rows = 0, out_columns = 0;
  int64_t weight = 0, bias = 0;  // where they stand in the caller's weights
  int64_t kept = 0;              // where the result stands in what is kept, in values
  std::vector<int64_t> order{};  // where an entry of a patch stands among the caller's weights
  int64_t positions() const { return out_rows * out_columns; }
  int64_t run() const { return kernel * channels; }
  int64_t patch() const { return kernel * run(); }
};

struct Sizes {
  std::vector<Layer> layers;
  int64_t image, positions, channels, area, slots, wide, dim;
  int64_t slot_weight, slot_bias, weight, bias, all_weights;
  int64_t maps, values;  // where the maps stand in what is kept, and how many values are kept
  int64_t group;         // frames that go through the layers together

  explicit Sizes(const Problem &p) : image(up(p.height * p.width, PAD)), values(0) {
    int64_t rows = p.height, columns = p.width, place = 0;
    channels = 1;
    for (int64_t l = 0; l < p.layers; l++) {
      const int64_t *own = p.trunk + 3 * l, kernel = own[1], stride = own[2];
      Layer layer{rows, columns, channels, own[0], kernel, stride};
      rows = layer.out_rows = (rows - kernel) / stride + 1;
      columns = layer.out_columns = (columns - kernel) / stride + 1;
      layer.weight = place;
      layer.bias = place += layer.outputs * layer.patch();
      place += channels = layer.outputs;
      layer.kept = values;
      for (int64_t k = 0; k < layer.patch(); k++)  // patches have the channels last
        layer.order.push_back(k % layer.channels * kernel * kernel + k / layer.channels);
      values += p.frames * layer.positions() * channels;
      layers.push_back(layer);
    }
    positions = rows * columns;
    area = up(positions, PAD);
    slots = up(p.slots, PAD);
    wide = p.maps * area;
    dim = up(p.dim, PAD);
    slot_weight = place;
    slot_bias = place += p.slots * p.maps * channels;
    weight = place += p.slots * p.maps;
    bias = place += p.dim * p.maps * positions;
    all_weights = place + p.dim;
    maps = up(values, PAD);
    values = maps + p.frames * slots * wide;
    group = std::max<int64_t>(1, PATCHES / layers[0].positions());
  }
};

// ---- weights as operands -----------------------------------------------------------------------

// B(k, n) = value(k, n) as words, padded with zeros.
template <class Unit, class Value>
Buffer<typename Unit::Word> packed(int64_t length, int64_t columns, const Value &value) {
  const int64_t width = up(columns, PAD);
  auto words = allocate<typename Unit::Word>(up(length, PAD) / Unit::VALUES * width);
  for (int64_t k = 0; k < length; k++)
    for (int64_t n = 0; n < columns; n++) {
      const float values[2] = {value(k, n), k + 1 < length ? value(k + 1, n) : 0.0f};
      if (k % Unit::VALUES == 0) words[k / Unit::VALUES * width + n] = Unit::word(values, 1);
    }
  return words;
}

template <class Unit>
struct Weights {
  using Word = typename Unit::Word;
  std::vector<Buffer<Word>> forward, backward;   // [patch][outputs], [outputs][patch]
  Buffer<Word> slots, slots_across;              // rows [map][channel], [map][channel]
  Buffer<Word> project, project_across;          // [map][dim], [dim][map]
  Buffer<float> slot_bias, bias;                 // [map][area], [dim]

  Weights(const Problem &p, const Sizes &s, bool backwards) {
    const int64_t maps = p.slots * p.maps;
    const auto of_slot = [&](int64_t map, int64_t channel) {
      return map < maps ? p.weights[s.slot_weight + map * s.channels + channel] : 0.0f;
    };
    const auto projected = [&](int64_t k, int64_t d) {
      const int64_t map = k / s.area, place = k % s.area;
      const float *own = p.weights + s.weight + (d * p.maps + map) * s.positions;
      return place < s.positions ? own[place] : 0.0f;
    };
    for (const Layer &l : s.layers) {
      const float *w = p.weights + l.weight;
      const auto value = [&](int64_t k, int64_t o) { return w[o * l.patch() + l.order[k]]; };
      const auto across = [&](int64_t o, int64_t k) { return value(k, o); };
      if (!backwards) forward.push_back(packed<Unit>(l.patch(), l.outputs, value));
      if (backwards) backward.push_back(packed<Unit>(l.outputs, l.patch(), across));
    }
    if (backwards) {
      slots_across = packed<Unit>(s.slots * p.maps, s.channels, of_slot);
      project_across = packed<Unit>(p.dim, s.wide, [&](int64_t d, int64_t k) { return projected(k, d); });
      return;
    }
    slots = allocate<Word>(s.slots * p.maps * s.channels / Unit::VALUES);
    for (int64_t k = 0; k < maps * s.channels; k += Unit::VALUES)
      slots[k / Unit::VALUES] = Unit::word(p.weights + s.slot_weight + k, 1);
    project = packed<Unit>(s.wide, p.dim, projected);
    slot_bias = allocate<float>(s.slots * s.wide);
    for (int64_t k = 0; k < maps; k++)
      std::fill_n(slot_bias.get() + k * s.area, s.area, p.weights[s.slot_bias + k]);
    bias = allocate<float>(s.dim);
    std::copy_n(p.weights + s.bias, p.dim, bias.get());
  }
};

// Where the gradients of the weights are added up, as the products give them.
struct WeightGradients {
  int64_t count = 0;
  Buffer<float> all;
  std::vector<float *> layers, biases;            // [patch][outputs], [outputs]
  float *slots, *slot_bias, *project, *bias;      // [map][channel], [map][LANES], [dim][map], [dim]

  WeightGradients(const Problem &p, const Sizes &s)
      : layers(s.layers.size()), biases(s.layers.size()) {
    std::vector<std::pair<float **, int64_t>> parts = {
        {&slots, s.slots * p.maps * s.channels}, {&slot_bias, s.slots * p.maps * LANES},
        {&project, s.dim * s.wide}, {&bias, s.dim}};
    for (size_t number = 0; number < layers.size(); number++) {
      const Layer &l = s.layers[number];
      parts.insert(parts.end(), {{&layers[number], l.patch() * l.outputs},
                                 {&biases[number], l.outputs}});
    }
    for (const auto &part : parts) count += part.second;
    all = allocate<float>(count);
    float *place = all.get();
    for (const auto &part : parts) {
      *part.first = place;
      place += part.second;
    }
  }

  // In the caller's order.
  void give(const Problem &p, const Sizes &s) const {
    float *const g = p.g_weights;
    for (size_t number = 0; number < layers.size(); number++) {
      const Layer &l = s.layers[number];
      std::copy_n(biases[number], l.outputs, g + l.bias);
      for (int64_t o = 0; o < l.outputs; o++)
        for (int64_t k = 0; k < l.patch(); k++)
          g[l.weight + o * l.patch() + l.order[k]] = layers[number][k * l.outputs + o];
    }
    std::copy_n(slots, p.slots * p.maps * s.channels, g + s.slot_weight);
    for (int64_t k = 0; k < p.slots * p.maps; k++)
      for (int lane = 0; lane < LANES; lane++) g[s.slot_bias + k] += slot_bias[k * LANES + lane];
    std::copy_n(bias, p.dim, g + s.bias);
    for (int64_t d = 0; d < p.dim; d++)
      for (int64_t map = 0; map < p.maps; map++)
        std::copy_n(project + d * s.wide + map * s.area, s.positions,
                    g + s.weight + (d * p.maps + map) * s.positions);
  }
};

// ---- a group of frames -------------------------------------------------------------------------

template <class Unit>
class Group {
  using Word = typename Unit::Word;
  static constexpr int64_t COLUMNS = TILE_COLUMNS * LANES, ROWS = Unit::ROWS, VALUES = Unit::VALUES;
  static constexpr int64_t BYTES = sizeof(Word) / VALUES;  // of a value

 public:
  Group(const Problem &problem, const Sizes &sizes, const Weights<Unit> &w, bool backwards)
      : p(problem), s(sizes), weights(w), kept(static_cast<Word *>(problem.kept)) {
    int64_t most_patches = 0, most_results = 0;
    for (const Layer &l : s.layers) {
      const int64_t rows = up(s.group * l.positions(), PAD);
      most_patches = std::max(most_patches, rows * l.patch());
      most_results = std::max(most_results, rows * l.outputs);
    }
    image = words(s.group * s.image);
    patches = words(most_patches);
    last = words(s.area * s.channels);
    across = words(s.area * s.channels);
    if (!backwards) return;
    left = words(std::max({most_patches, s.slots * s.wide, s.slots * s.dim}));
    right = words(std::max({most_results, s.slots * s.wide, s.area * s.channels}));
    gradient = words(most_results);
    above = words(s.slots * s.dim);
    maps = words(s.slots * s.wide);
    int64_t widest = std::max(s.wide, s.channels);
    for (const Layer &l : s.layers) {
      widest = std::max(widest, l.patch());
      below.push_back(allocate<float>(s.group * l.positions() * l.outputs));
    }
    zeros = allocate<float>(widest);
  }

  // Encode the frames [begin, end).
  void forward(int64_t begin, int64_t end) {
    standardise(begin, end);
    const Word *input = image.get();
    int64_t pitch = s.image;
    for (size_t number = 0; number < s.layers.size(); number++) {
      const Layer &l = s.layers[number];
      Word *const output = result(l, begin);
      const int64_t rows = (end - begin) * l.positions(), width = l.outputs / VALUES;
      cut(l, input, pitch, end - begin);
      product({patches.get(), l.patch() / VALUES, 1, weights.forward[number].get(),
               p.weights + l.bias, 0, up(rows, ROWS), l.outputs, l.patch() / VALUES},
              [=](int64_t m, int64_t n, Tile &tile) INLINE {
                for_rows(m, rows, [&](int r) INLINE {
                  for (int v = 0; v < TILE_COLUMNS; v++) tile[r][v] = relu(tile[r][v]);
                  Unit::put(output + (m + r) * width, n, tile[r]);
                });
              });
      input = output;
      pitch = l.positions() * l.outputs;
    }
    for (int64_t frame = begin; frame < end; frame++) {
      take_last(frame);
      transpose_last();
      Word *const output = frame_maps(frame);
      product({weights.slots.get(), s.channels / VALUES, 1, across.get(), weights.slot_bias.get(),
               s.area, s.slots * p.maps, s.area, s.channels / VALUES},
              [=, width = s.area / VALUES](int64_t m, int64_t n, Tile &tile) INLINE {
                for (int r = 0; r < TILE_ROWS; r++) Unit::put(output + (m + r) * width, n, tile[r]);
              });
      float *const out = p.out + frame * p.slots * p.dim;
      product({output, s.wide / VALUES, 1, weights.project.get(), weights.bias.get(), 0,
               up(p.slots, ROWS), s.dim, s.wide / VALUES},
              [=, slots = p.slots, dim = p.dim](int64_t m, int64_t n, Tile &tile) INLINE {
                for_rows(m, slots, [&](int r) INLINE {
                  float *const target = out + (m + r) * dim + n;
                  if (n + COLUMNS <= dim) {
                    for (int v = 0; v < TILE_COLUMNS; v++) store(target + v * LANES, tile[r][v]);
                  } else if (n < dim) {
                    std::memcpy(target, tile[r], (dim - n) * sizeof(float));
                  }
                });
              });
    }
  }

  void backward(int64_t begin, int64_t end, WeightGradients &g) {
    const int64_t frames = end - begin;
    for (int64_t frame = begin; frame < end; frame++) through_slots(frame, frame - begin, g);
    for (size_t number = s.layers.size(); number-- > 0;) {
      const Layer &l = s.layers[number];
      const int64_t rows = frames * l.positions(), padded = up(rows, PAD);
      mask(l, result(l, begin), below[number].get(), rows, g.biases[number]);
      if (number) {
        const Layer &before = s.layers[number - 1];
        cut(l, result(before, begin), before.positions() * before.outputs, frames);
      } else {
        standardise(begin, end);
        cut(l, image.get(), s.image, frames);
      }
      const Word *a = Unit::along_pairs(patches.get(), left.get(), padded, l.patch());
      const Word *b = Unit::along_pairs(gradient.get(), right.get(), padded, l.outputs);
      add_product(g.layers[number], a, l.patch(), b, l.outputs, padded / VALUES);
      if (number) to_layer_below(number, rows);
    }
  }

 private:
  Buffer<Word> words(int64_t values) { return allocate<Word>(values / VALUES); }

  Word *result(const Layer &l, int64_t frame) const {
    return kept + (l.kept + frame * l.positions() * l.outputs) / VALUES;
  }
  Word *frame_maps(int64_t frame) const {
    return kept + (s.maps + frame * s.slots * s.wide) / VALUES;
  }

  template <class Use>
  INLINE void product(const Product<Word> &product, const Use &use) {
    unit.product(product, use);
  }

  // target(m, n) += sum over k of a[k][m] b[k][n].
  void add_product(float *target, const Word *a, int64_t rows, const Word *b, int64_t columns,
                   int64_t length) {
    product({a, 1, rows, b, target, columns, rows, columns, length},
            [=](int64_t m, int64_t n, Tile &tile) INLINE {
              for (int r = 0; r < TILE_ROWS; r++)
                for (int v = 0; v < TILE_COLUMNS; v++)
                  store(target + (m + r) * columns + n + v * LANES, tile[r][v]);
            });
  }

  // Visit those rows of a tile that are there.
  template <class Visit>
  INLINE static void for_rows(int64_t m, int64_t rows, const Visit &visit) {
    if (m + TILE_ROWS <= rows) {
#pragma GCC unroll 8
      for (int r = 0; r < TILE_ROWS; r++) visit(r);
    } else {
#pragma GCC unroll 8
      for (int r = 0; r < TILE_ROWS; r++)
        if (m + r < rows) visit(r);
    }
  }

  // ---- images and patches

  void standardise(int64_t begin, int64_t end) {
    const int64_t pixels = p.height * p.width;
    const float deviation = *p.deviation;
    for (int64_t frame = begin; frame < end; frame++) {
      const uint8_t *const source = p.pixels + frame * pixels;
      Word *const target = image.get() + (frame - begin) * s.image / VALUES;
      for (int64_t n = 0; n < pixels; n += COLUMNS) {
        float gray[COLUMNS] = {};
        const int64_t count = std::min(COLUMNS, pixels - n);
        if (count == COLUMNS)
          for (int k = 0; k < COLUMNS; k++) gray[k] = (source[n + k] - p.mean[n + k]) / deviation;
        else
          for (int k = 0; k < count; k++) gray[k] = (source[n + k] - p.mean[n + k]) / deviation;
        Vector values[TILE_COLUMNS];
        for (int v = 0; v < TILE_COLUMNS; v++) values[v] = load(gray + v * LANES);
        Unit::put(target, n, values);
      }
    }
  }

  // Patches of some frames, below each other; rows up to a multiple of PAD are zero.
  void cut(const Layer &l, const Word *input, int64_t pitch, int64_t frames) {
    if (l.run() * BYTES == 16) return cut_runs<16>(l, input, pitch, frames);
    if (l.run() * BYTES == 32) return cut_runs<32>(l, input, pitch, frames);
    cut_runs<64>(l, input, pitch, frames);
  }

  template <int CHUNK>
  void cut_runs(const Layer &l, const Word *input, int64_t pitch, int64_t frames) {
    const int64_t bytes = l.run() * BYTES, line = l.columns * l.channels * BYTES;
    const int64_t step = l.stride * l.channels * BYTES, wide = l.patch() * BYTES;
    const bool even = bytes % CHUNK == 0;
    char *target = reinterpret_cast<char *>(patches.get());
    for (int64_t frame = 0; frame < frames; frame++)
      for (int64_t y = 0; y < l.out_rows; y++)
        for (int64_t x = 0; x < l.out_columns; x++, target += wide) {
          const char *source = reinterpret_cast<const char *>(input) + frame * pitch * BYTES +
                               y * l.stride * line + x * step;
          for (int64_t row = 0; row < l.kernel; row++, source += line)
            if (even)
              for (int64_t b = 0; b < bytes; b += CHUNK)
                std::memcpy(target + row * bytes + b, source + b, CHUNK);
            else
              std::memcpy(target + row * bytes, source, bytes);
        }
    const int64_t rows = frames * l.positions();
    std::memset(target, 0, (up(rows, PAD) - rows) * wide);
  }

  // The last layer's result of a frame, padded with rows of zeros.
  void take_last(int64_t frame) {
    const Word *const source = result(s.layers.back(), frame);
    std::copy_n(source, s.positions * s.channels / VALUES, last.get());
  }

  // From rows of positions to rows of words of channels.
  void transpose_last() {
    const int64_t width = s.channels / VALUES;
    for (int64_t k = 0; k < s.positions; k++)
      for (int64_t c = 0; c < width; c++) across[c * s.area + k] = last[k * width + c];
  }

  // ---- backward

  // From the gradient of a frame's latents to that of the last layer, in `below`.
  void through_slots(int64_t frame, int64_t place, WeightGradients &g) {
    take_gradient(frame, g);
    Word *const target = maps.get();
    float *const sums = g.slot_bias;
    product({above.get(), s.dim / VALUES, 1, weights.project_across.get(), zeros.get(), 0, s.slots,
             s.wide, s.dim / VALUES},
            [=, width = s.wide / VALUES, area = s.area, count = p.maps](int64_t m, int64_t n,
                                                                       Tile &tile) INLINE {
              for (int r = 0; r < TILE_ROWS; r++) {
                Unit::put(target + (m + r) * width, n, tile[r]);
                Vector sum = tile[r][0];
                for (int v = 1; v < TILE_COLUMNS; v++) sum += tile[r][v];
                add_at(sums + ((m + r) * count + n / area) * LANES, sum);
              }
            });
    const Word *a = Unit::along_pairs(above.get(), left.get(), s.slots, s.dim);
    const Word *b = Unit::along_pairs(frame_maps(frame), right.get(), s.slots, s.wide);
    add_product(g.project, a, s.dim, b, s.wide, s.slots / VALUES);
    take_last(frame);
    b = Unit::along_pairs(last.get(), right.get(), s.area, s.channels);
    float *const slots = g.slots;
    product({maps.get(), s.area / VALUES, 1, b, slots, s.channels, s.slots * p.maps, s.channels,
             s.area / VALUES},
            [=, columns = s.channels](int64_t m, int64_t n, Tile &tile) INLINE {
              for (int r = 0; r < TILE_ROWS; r++)
                for (int v = 0; v < TILE_COLUMNS; v++)
                  store(slots + (m + r) * columns + n + v * LANES, tile[r][v]);
            });
    a = Unit::along_pairs(maps.get(), left.get(), s.slots * p.maps, s.area);
    float *const under = below.back().get() + place * s.positions * s.channels;
    product({a, 1, s.area, weights.slots_across.get(), zeros.get(), 0, up(s.positions, ROWS),
             s.channels, s.slots * p.maps / VALUES},
            [=, rows = s.positions, columns = s.channels](int64_t m, int64_t n, Tile &tile) INLINE {
              for_rows(m, rows, [&](int r) INLINE {
                for (int v = 0; v < TILE_COLUMNS; v++)
                  store(under + (m + r) * columns + n + v * LANES, tile[r][v]);
              });
            });
  }

  // The gradient of a frame's latents as words, and its sum.
  void take_gradient(int64_t frame, WeightGradients &g) {
    const float *const source = p.gradient + frame * p.slots * p.dim;
    for (int64_t m = 0; m < p.slots; m++)
      for (int64_t n = 0; n < p.dim; n += COLUMNS) {
        float values[COLUMNS] = {};
        std::memcpy(values, source + m * p.dim + n, std::min(COLUMNS, p.dim - n) * sizeof(float));
        Vector row[TILE_COLUMNS];
        for (int v = 0; v < TILE_COLUMNS; v++) {
          row[v] = load(values + v * LANES);
          add_at(g.bias + n + v * LANES, row[v]);
        }
        Unit::put(above.get() + m * s.dim / VALUES, n, row);
      }
  }

  // The gradient below a layer's relu as words, and its sum; rows up to a multiple of PAD are zero.
  void mask(const Layer &l, const Word *output, const float *source, int64_t rows, float *bias) {
    const int64_t width = l.outputs / VALUES;
    Word *const target = gradient.get();
    for (int64_t n = 0; n < l.outputs; n += COLUMNS) {
      Vector sum[TILE_COLUMNS] = {};
      for (int64_t m = 0; m < rows; m++) {
        Vector values[TILE_COLUMNS];
        Unit::get(output + m * width, n, values);
        for (int v = 0; v < TILE_COLUMNS; v++) {
          values[v] = masked(load(source + m * l.outputs + n + v * LANES), values[v]);
          sum[v] += values[v];
        }
        Unit::put(target + m * width, n, values);
      }
      for (int v = 0; v < TILE_COLUMNS; v++) add_at(bias + n + v * LANES, sum[v]);
    }
    std::fill(target + rows * width, target + up(rows, PAD) * width, Word{});
  }

  // From the gradient of a layer's sums to that of its input: patches overlap and add up.
  void to_layer_below(size_t number, int64_t rows) {
    const Layer &l = s.layers[number];
    const int64_t line = l.columns * l.channels, run = l.run();
    float *const target = below[number - 1].get();
    std::fill_n(target, rows / l.positions() * l.rows * line, 0.0f);
    origins.resize(up(rows, PAD));
    for (int64_t m = 0; m < rows; m++) {
      const int64_t frame = m / l.positions(), place = m % l.positions();
      const int64_t y = place / l.out_columns * l.stride, x = place % l.out_columns * l.stride;
      origins[m] = (frame * l.rows + y) * line + x * l.channels;
    }
    product({gradient.get(), l.outputs / VALUES, 1, weights.backward[number].get(), zeros.get(), 0,
             up(rows, ROWS), l.patch(), l.outputs / VALUES},
            [=, origin = origins.data()](int64_t m, int64_t n, Tile &tile) INLINE {
              float *const place = target + n / run * line + n % run;
              for_rows(m, rows, [&](int r) INLINE {
                for (int v = 0; v < TILE_COLUMNS; v++)
                  add_at(place + origin[m + r] + v * LANES, tile[r][v]);
              });
            });
  }

  const Problem &p;
  const Sizes &s;
  const Weights<Unit> &weights;
  Word *const kept;
  Unit unit;
  Buffer<Word> image, patches, last, across, left, right, gradient, above, maps;
  Buffer<float> zeros;
  std::vector<Buffer<float>> below;  // gradients of the layers' results
  std::vector<int64_t> origins;
};

template <class Unit>
struct Forward {
  static void run(const Problem &p) {
    const Sizes s(p);
    const Weights<Unit> weights(p, s, false);
    in_threads(p.threads, (p.frames + s.group - 1) / s.group,
               [&] { return Group<Unit>(p, s, weights, false); },
               [&](int64_t number, Group<Unit> &group) {
                 const int64_t begin = number * s.group;
                 group.forward(begin, std::min(begin + s.group, p.frames));
               });
  }
};

template <class Unit>
struct Backward {
  static void run(const Problem &p) {
    const Sizes s(p);
    const Weights<Unit> weights(p, s, true);
    const int64_t groups = (p.frames + s.group - 1) / s.group;
    const int64_t share = (groups + PARTS - 1) / PARTS, parts = (groups + share - 1) / share;
    std::vector<WeightGradients> sums;
    for (int64_t number = 0; number < parts; number++) sums.emplace_back(p, s);
    in_threads(p.threads, parts, [&] { return Group<Unit>(p, s, weights, true); },
               [&](int64_t number, Group<Unit> &group) {
                 const int64_t end = std::min((number + 1) * share * s.group, p.frames);
                 for (int64_t at = number * share * s.group; at < end; at += s.group)
                   group.backward(at, std::min(at + s.group, end), sums[number]);
               });
    for (int64_t number = 1; number < parts; number++)
      add_to(sums[0].all.get(), sums[number].all.get(), sums[0].count);
    sums[0].give(p, s);
  }
};

}  // namespace

extern "C" {

// Bytes that the layers' results take; a unit may round them to two bytes a value.
int64_t kept_bytes(const Problem *p) { return Sizes(*p).values * sizeof(float); }

int encode(const Problem *p) { return p->frames ? on_unit<Forward>(*p) : DONE; }
int encode_backward(const Problem *p) { return p->frames ? on_unit<Backward>(*p) : DONE; }
}
