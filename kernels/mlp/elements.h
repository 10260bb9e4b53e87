// What one thread of CUDA does: plain code, which the tests also run on the CPU.
#pragma once

#include "mlp/mlp.h"
#include "studio/index.h"
#include "studio/math/activation.h"

STUDIO_NAMESPACE_BEGIN

// The numbers of all layers behind the inputs, a row for each point.
struct MlpRows {
  int64_t begin[STUDIO_MLP_LAYERS];  // of each layer in a row
  int64_t length = 0;

  explicit MlpRows(const StudioMlp& in) {
    for (int l = 0; l < in.layers; length += in.widths[++l]) begin[l] = length;
  }
};

// A point that goes through the layers, whose threads all read the same weights at the same time. WIDTH: as wide as
// the widest layer.
template <int WIDTH>
struct MlpPoint {
  static constexpr int AT_ONCE = 4;  // numbers of a layer, to read those of the layer before once
  float numbers[WIDTH], others[WIDTH];

  // numbers become weights numbers + biases.
  HD void through_layer(const float* weights, const float* biases, int width, int out) {
    for (int o = 0; o < out; o += AT_ONCE) {
      float sums[AT_ONCE];
      const float* rows[AT_ONCE];
      for (int k = 0; k < AT_ONCE; ++k) {
        const int row = o + k < out ? o + k : out - 1;
        sums[k] = biases[row], rows[k] = weights + int64_t(row) * width;
      }
      for (int i = 0; i < width; ++i) {
        const float number = numbers[i];
        for (int k = 0; k < AT_ONCE; ++k) sums[k] += rows[k][i] * number;
      }
      for (int k = 0; k < AT_ONCE && o + k < out; ++k) others[o + k] = sums[k];
    }
    for (int o = 0; o < out; ++o) numbers[o] = others[o];
  }

  // numbers become weights^T numbers.
  HD void back_through_layer(const float* weights, int width, int out) {
    for (int first = 0; first < width; first += AT_ONCE) {
      float sums[AT_ONCE] = {};
      int columns[AT_ONCE];
      for (int k = 0; k < AT_ONCE; ++k) columns[k] = first + k < width ? first + k : width - 1;
      for (int o = 0; o < out; ++o) {
        const float number = numbers[o];
        for (int k = 0; k < AT_ONCE; ++k) sums[k] += weights[int64_t(o) * width + columns[k]] * number;
      }
      for (int k = 0; k < AT_ONCE && first + k < width; ++k) others[first + k] = sums[k];
    }
    for (int i = 0; i < width; ++i) numbers[i] = others[i];
  }

  // keep(layer, numbers behind it)
  template <class Keep>
  HD void run(const StudioMlp& in, int64_t point, Keep&& keep) {
    for (int i = 0; i < in.widths[0]; ++i) numbers[i] = in.inputs[point * in.widths[0] + i];
    for (int l = 0; l < in.layers; ++l) {
      const int out = in.widths[l + 1];
      through_layer(in.weights[l], in.biases[l], in.widths[l], out);
      for (int o = 0; l + 1 < in.layers && o < out; ++o) numbers[o] = activate(numbers[o], in.softplus != 0);
      keep(l, numbers);
    }
  }
};

template <int WIDTH>
struct MlpForward {
  StudioMlp in;

  HD void operator()(int64_t i) const {
    MlpPoint<WIDTH> point;
    const int out = in.widths[in.layers];
    point.run(in, i, [](int, const float*) {});
    for (int o = 0; o < out; ++o) in.outputs[i * out + o] = point.numbers[o];
  }
};

// Point first + i: the gradient on its inputs. For the gradients on weights it leaves what its layers gave, and the
// gradients on that before the activation.
template <int WIDTH>
struct MlpBackward {
  StudioMlp in;
  MlpRows rows;
  int64_t first;
  float *given, *v_given;  // [points rows.length]

  HD void operator()(int64_t i) const {
    MlpPoint<WIDTH> point;
    const int64_t row = i * rows.length;
    point.run(in, first + i, [&](int l, const float* numbers) {
      for (int o = 0; o < in.widths[l + 1]; ++o) given[row + rows.begin[l] + o] = numbers[o];
    });
    const int last = in.widths[in.layers];
    for (int o = 0; o < last; ++o) point.numbers[o] = in.v_outputs[(first + i) * last + o];
    for (int l = in.layers - 1; l >= 0; --l) {
      const int out = in.widths[l + 1], width = in.widths[l];
      for (int o = 0; o < out; ++o) v_given[row + rows.begin[l] + o] = point.numbers[o];
      if (l == 0 && in.v_inputs == nullptr) return;
      point.back_through_layer(in.weights[l], width, out);
      for (int k = 0; l > 0 && k < width; ++k) {
        point.numbers[k] *= activation_slope(given[row + rows.begin[l - 1] + k], in.softplus != 0);
      }
    }
    for (int k = 0; k < in.widths[0]; ++k) in.v_inputs[(first + i) * in.widths[0] + k] = point.numbers[k];
  }
};

// Of one layer and some of the points: what they add to the gradient on one column of AT_ONCE rows of the weights; the
// column after the last is the biases'. The gradients begin at 0.
struct MlpWeights {
  static constexpr int AT_ONCE = 4, POINTS = 512;

  StudioMlp in;
  MlpRows rows;
  int64_t first, points;
  const float *given, *v_given;

  HD int64_t groups(int layer) const { return (in.widths[layer + 1] + AT_ONCE - 1) / AT_ONCE; }
  HD int64_t count(int layer) const {
    return (in.widths[layer] + 1) * groups(layer) * ((points + POINTS - 1) / POINTS);
  }
  int64_t count() const {
    int64_t sum = 0;
    for (int l = 0; l < in.layers; ++l) sum += count(l);
    return sum;
  }

  HD void operator()(int64_t i) const {
    int l = 0;
    for (; i >= count(l); ++l) i -= count(l);
    const int width = in.widths[l], out = in.widths[l + 1];
    const int column = static_cast<int>(i % (width + 1)), row = static_cast<int>(i / (width + 1) % groups(l)) * AT_ONCE;
    const int64_t share = i / (width + 1) / groups(l);
    float sums[AT_ONCE] = {};
    for (int64_t p = share * POINTS; p < min_of((share + 1) * POINTS, points); ++p) {
      const float* before = l == 0 ? in.inputs + (first + p) * width : given + p * rows.length + rows.begin[l - 1];
      const float number = column < width ? before[column] : 1;
      const float* v = v_given + p * rows.length + rows.begin[l] + row;
      for (int k = 0; k < AT_ONCE && row + k < out; ++k) sums[k] += v[k] * number;
    }
    for (int k = 0; k < AT_ONCE && row + k < out; ++k) {
      add_to(column < width ? in.v_weights[l] + int64_t(row + k) * width + column : in.v_biases[l] + row + k, sums[k]);
    }
  }
};

STUDIO_NAMESPACE_END
