#include "mlp/mlp.h"

#include <cstring>
#include <stdexcept>

#include "studio/buffer.h"
#include "studio/index.h"
#include "studio/math/activation.h"
#include "studio/parallel.h"
#include "studio/simd.h"

STUDIO_NAMESPACE_BEGIN
namespace {

// A tile of a product is kept in registers: 24 of 32 with AVX-512, 12 of 16 elsewhere, in up to 4 or 2 columns.
constexpr int kColumns = LANES == 16 ? 4 : 2;
constexpr int kTile = 6 * kColumns;
constexpr int64_t kBlock = 96;  // points whose layers are computed together
constexpr int64_t kTask = 24 * kBlock;
constexpr int64_t kTasks = 64;  // at most, so that their shares of the gradient stay few

int64_t padded(int64_t width) { return (width + LANES - 1) / LANES * LANES; }

// Entry (i, k) of a matrix is values[i * row + k * column].
struct Strided {
  const float* values;
  int64_t row, column;

  Strided from(int64_t i) const { return {values + i * row, row, column}; }
};

template <int ROWS, int VECTORS>
HD void add_tile(const Strided& a, const float* b, int64_t b_row, float* sum, int64_t sum_row, int64_t count) {
  Float tile[ROWS][VECTORS];
  for (int i = 0; i < ROWS; ++i) {
    for (int j = 0; j < VECTORS; ++j) tile[i][j] = Float::load(sum + i * sum_row + j * LANES);
  }
  for (int64_t k = 0; k < count; ++k) {
    Float row[VECTORS];
    for (int j = 0; j < VECTORS; ++j) row[j] = Float::load(b + k * b_row + j * LANES);
    for (int i = 0; i < ROWS; ++i) {
      const Float factor = a.values[i * a.row + k * a.column];
      for (int j = 0; j < VECTORS; ++j) tile[i][j] += factor * row[j];
    }
  }
  for (int i = 0; i < ROWS; ++i) {
    for (int j = 0; j < VECTORS; ++j) tile[i][j].store(sum + i * sum_row + j * LANES);
  }
}

template <int VECTORS>
void add_columns(const Strided& a, const float* b, int64_t b_row, float* sum, int64_t sum_row, int64_t rows,
                 int64_t count) {
  constexpr int ROWS = VECTORS == 1 ? 12 : kTile / VECTORS;
  int64_t i = 0;
  for (; i + ROWS <= rows; i += ROWS) {
    add_tile<ROWS, VECTORS>(a.from(i), b, b_row, sum + i * sum_row, sum_row, count);
  }
  for (; i + 2 <= rows; i += 2) add_tile<2, VECTORS>(a.from(i), b, b_row, sum + i * sum_row, sum_row, count);
  for (; i < rows; ++i) add_tile<1, VECTORS>(a.from(i), b, b_row, sum + i * sum_row, sum_row, count);
}

// sum [rows columns] += a [rows count] b [count columns], with columns a multiple of LANES in rows as long.
void add_product(const Strided& a, const float* b, float* sum, int64_t rows, int64_t columns, int64_t count) {
  int64_t j = 0;
  for (; j + kColumns * LANES <= columns; j += kColumns * LANES) {
    add_columns<kColumns>(a, b + j, columns, sum + j, columns, rows, count);
  }
  for (; j + 2 * LANES <= columns; j += 2 * LANES) {
    add_columns<2>(a, b + j, columns, sum + j, columns, rows, count);
  }
  for (; j < columns; j += LANES) add_columns<1>(a, b + j, columns, sum + j, columns, rows, count);
}

// The weights in the two orders that the products read, and where each layer begins in them and in the gradients.
class Network {
 public:
  explicit Network(const StudioMlp& in) : in(in), forward_(sizes(in)), backward_(sizes(in)) {
    for (int l = 0; l < in.layers; ++l) {
      float *forward = forward_.data() + begin_[l], *backward = backward_.data() + begin_[l];
      memset(forward, 0, size(l) * sizeof(float)), memset(backward, 0, size(l) * sizeof(float));
      for (int64_t o = 0; o < width(l + 1); ++o) {
        forward[width(l) * out(l) + o] = in.biases[l][o];
        for (int64_t i = 0; i < width(l); ++i) {
          const float weight = in.weights[l][o * width(l) + i];
          forward[i * out(l) + o] = weight, backward[o * padded(width(l)) + i] = weight;
        }
      }
    }
  }

  int64_t width(int l) const { return in.widths[l]; }
  int64_t out(int l) const { return padded(in.widths[l + 1]); }
  const float* forward(int l) const { return forward_.data() + begin_[l]; }  // [in out], and a row of biases
  const float* backward(int l) const { return backward_.data() + begin_[l]; }  // [out in]
  int64_t widest() const {
    int64_t widest = 0;
    for (int l = 0; l <= in.layers; ++l) widest = padded(width(l)) > widest ? padded(width(l)) : widest;
    return widest;
  }
  int64_t begin(int l) const { return begin_[l]; }
  int64_t total() const { return begin_[in.layers]; }

  const StudioMlp& in;

 private:
  static int64_t size_of(const StudioMlp& in, int l) {
    const int64_t one = (in.widths[l] + 1) * padded(in.widths[l + 1]);
    const int64_t other = in.widths[l + 1] * padded(in.widths[l]);
    return padded(one > other ? one : other);
  }
  int64_t size(int l) const { return begin_[l + 1] - begin_[l]; }

  int64_t sizes(const StudioMlp& in) {
    begin_[0] = 0;
    for (int l = 0; l < in.layers; ++l) begin_[l + 1] = begin_[l] + size_of(in, l);
    return begin_[in.layers];
  }

  int64_t begin_[STUDIO_MLP_LAYERS + 1];
  Buffer<float> forward_, backward_;
};

// The layers of one block of points.
class Block {
 public:
  explicit Block(const Network& net)
      : net_(net), size_(kBlock * net.widest()), values_(net.in.layers * size_), v_(2 * size_) {}

  const float* run(int64_t first, int64_t points) {
    for (int l = 0; l < net_.in.layers; ++l) {
      const int64_t out = net_.out(l);
      for (int64_t i = 0; i < points; ++i) {
        memcpy(layer(l) + i * out, net_.forward(l) + net_.width(l) * out, out * sizeof(float));
      }
      add_product(input(l, first), net_.forward(l), layer(l), points, out, net_.width(l));
      if (l + 1 == net_.in.layers) break;
      for (int64_t i = 0; i < points * out; i += LANES) {
        activate(Float::load(layer(l) + i), net_.in.softplus != 0).store(layer(l) + i);
      }
    }
    return layer(net_.in.layers - 1);
  }

  // After run. Adds to the gradients on weights, in the order of Network::forward.
  void run_vjp(int64_t first, int64_t points, float* v_weights) {
    const StudioMlp& in = net_.in;
    float *v = v_.data(), *next = v_.data() + size_;
    const int64_t last = net_.width(in.layers);
    memset(v, 0, points * net_.out(in.layers - 1) * sizeof(float));
    for (int64_t i = 0; i < points; ++i) {
      memcpy(v + i * net_.out(in.layers - 1), in.v_outputs + (first + i) * last, last * sizeof(float));
    }
    for (int l = in.layers - 1; l >= 0; --l) {
      const int64_t out = net_.out(l), width = net_.width(l), columns = padded(width);
      if (v_weights != nullptr) {
        float* sums = v_weights + net_.begin(l);
        const Strided turned = {input(l, first).values, 1, input(l, first).row};
        add_product(turned, v, sums, width, out, points);
        const float one = 1;
        add_product({&one, 0, 0}, v, sums + width * out, 1, out, points);
      }
      if (l == 0 && in.v_inputs == nullptr) return;
      memset(next, 0, points * columns * sizeof(float));
      add_product({v, out, 1}, net_.backward(l), next, points, columns, net_.width(l + 1));
      for (int64_t i = 0; l > 0 && i < points * columns; i += LANES) {
        const Float slope = activation_slope(Float::load(layer(l - 1) + i), in.softplus != 0);
        (slope * Float::load(next + i)).store(next + i);
      }
      float* swapped = v;
      v = next, next = swapped;
    }
    const int64_t width = net_.width(0);
    for (int64_t i = 0; i < points; ++i) {
      memcpy(in.v_inputs + (first + i) * width, v + i * padded(width), width * sizeof(float));
    }
  }

 private:
  float* layer(int l) { return values_.data() + l * size_; }
  Strided input(int l, int64_t first) {
    if (l == 0) return {net_.in.inputs + first * net_.width(0), net_.width(0), 1};
    return {layer(l - 1), net_.out(l - 1), 1};
  }

  const Network& net_;
  const int64_t size_;  // of a layer
  Buffer<float> values_, v_;
};

void check(const StudioMlp& in) {
  bool fits = in.layers >= 1 && in.layers <= STUDIO_MLP_LAYERS;
  for (int l = 0; fits && l <= in.layers; ++l) fits = in.widths[l] >= 1 && in.widths[l] <= STUDIO_MLP_WIDTH;
  if (!fits) throw std::runtime_error("a network has 1 to 8 layers, 1 to 256 wide");
}

// work(task, first point, number of points) for each block; how points fall into tasks does not depend on threads.
template <class Work>
int64_t for_tasks(const StudioMlp& in, Work&& work) {
  const int64_t share = (in.points + kTasks - 1) / kTasks;
  const int64_t size = share <= kTask ? kTask : (share + kBlock - 1) / kBlock * kBlock;
  const int64_t tasks = (in.points + size - 1) / size;
  parallel_for(in.launch.threads, tasks, [&](int64_t task, int) {
    work(task, task * size, min_of((task + 1) * size, in.points));
  });
  return tasks;
}

}  // namespace

void mlp(const StudioMlp& in) {
  check(in);
  const Network net(in);
  const int64_t width = in.widths[in.layers], out = net.out(in.layers - 1);
  for_tasks(in, [&](int64_t, int64_t first, int64_t end) {
    Block block(net);
    for (; first < end; first += kBlock) {
      const int64_t points = min_of(kBlock, end - first);
      const float* values = block.run(first, points);
      for (int64_t i = 0; i < points; ++i) {
        memcpy(in.outputs + (first + i) * width, values + i * out, width * sizeof(float));
      }
    }
  });
}

void mlp_backward(const StudioMlp& in) {
  check(in);
  const Network net(in);
  const bool to_weights = in.v_weights[0] != nullptr;
  const Buffer<float> shares(to_weights ? (kTasks + 1) * net.total() : 0);
  const int64_t tasks = for_tasks(in, [&](int64_t task, int64_t first, int64_t end) {
    Block block(net);
    float* share = to_weights ? shares.data() + task * net.total() : nullptr;
    if (to_weights) memset(share, 0, net.total() * sizeof(float));
    for (; first < end; first += kBlock) {
      const int64_t points = min_of(kBlock, end - first);
      block.run(first, points);
      block.run_vjp(first, points, share);
    }
  });
  for (int l = 0; to_weights && l < in.layers; ++l) {
    const int64_t width = net.width(l), out = net.out(l);
    for (int64_t o = 0; o < net.width(l + 1); ++o) {
      for (int64_t i = 0; i <= width; ++i) {
        float sum = 0;
        for (int64_t task = 0; task < tasks; ++task) sum += shares[task * net.total() + net.begin(l) + i * out + o];
        (i < width ? in.v_weights[l][o * width + i] : in.v_biases[l][o]) = sum;
      }
    }
  }
}

STUDIO_NAMESPACE_END

STUDIO_ENTRY(studio_mlp, mlp, StudioMlp)
STUDIO_ENTRY(studio_mlp_backward, mlp_backward, StudioMlp)
