// What one thread of CUDA does: plain code, which the tests also run on the CPU.
//
// Between the rows of its points at both ends a network's numbers lie in columns: those of a neuron for all points one
// after another, filled up with zeros. So a layer is a product of matrices, of which a thread keeps a tile in its
// registers and the threads of a warp read what lies side by side.
#pragma once

#include "mlp/mlp.h"
#include "studio/index.h"
#include "studio/math/activation.h"

STUDIO_NAMESPACE_BEGIN

// As memory moves them.
struct alignas(16) MlpFour {
  float x[4];
};
HD MlpFour four_at(const float* aligned) { return *reinterpret_cast<const MlpFour*>(aligned); }

// The columns of the inputs and of what each layer gives.
struct MlpColumns {
  static constexpr int64_t FILLED = 128;  // points, to a multiple of which columns are filled up: those of a warp

  int64_t length = 0;  // of a column
  float* layer[STUDIO_MLP_LAYERS + 1] = {};
};

// to[i to_row + j to_column] becomes from[i from_row + j from_column], or 0 for j from columns on.
struct MlpCopy {
  const float* from;
  int64_t from_row, from_column;
  float* to;
  int64_t to_row, to_column, columns, filled;

  HD void operator()(int64_t n) const {
    const int64_t i = n / filled, j = n % filled;
    to[i * to_row + j * to_column] = j < columns ? from[i * from_row + j * from_column] : 0.0f;
  }
};

// ROWS neurons at POINTS points of one layer, forward or backward.
struct MlpProduct {
  static constexpr int ROWS = 8, POINTS = 4, WARP = 32;
  static_assert(MlpColumns::FILLED == WARP * POINTS, "a warp finds its points in every column");

  const float* factors;  // [terms filled], rows filled up to whole tiles
  const float* numbers;  // [terms length]
  const float* biases;   // [rows], or null
  const float* given;    // [rows length], by whose activation's slopes the result is multiplied; or null
  float* result;         // [rows length]
  int terms, rows;
  bool activated, softplus;
  int64_t length;

  HD static int filled(int rows) { return (rows + ROWS - 1) / ROWS * ROWS; }
  HD int64_t count() const { return length / POINTS * (filled(rows) / ROWS); }

  HD void operator()(int64_t i) const {
    const int tiles = filled(rows) / ROWS;  // of the same points, in one block if they can be
    const int64_t point = (i / WARP / tiles * WARP + i % WARP) * POINTS;
    const int first = static_cast<int>(i / WARP % tiles) * ROWS;
    MlpFour sums[ROWS];
    for (int r = 0; r < ROWS; ++r) {
      const float start = biases != nullptr && first + r < rows ? biases[first + r] : 0.0f;
      for (float& sum : sums[r].x) sum = start;
    }
    for (int k = 0; k < terms; ++k) {
      const MlpFour here = four_at(numbers + k * length + point);
      const float* row = factors + int64_t(k) * filled(rows) + first;
      const MlpFour halves[2] = {four_at(row), four_at(row + 4)};
      for (int r = 0; r < ROWS; ++r) {
        for (int p = 0; p < POINTS; ++p) sums[r].x[p] += halves[r / 4].x[r % 4] * here.x[p];
      }
    }
    for (int r = 0; r < ROWS; ++r) {
      if (first + r >= rows) continue;
      const int64_t at = (first + r) * length + point;
      for (int p = 0; p < POINTS; ++p) {
        float& sum = sums[r].x[p];
        if (activated) sum = activate(sum, softplus);
        if (given != nullptr) sum *= activation_slope(given[at + p], softplus);
      }
      *reinterpret_cast<MlpFour*>(result + at) = sums[r];
    }
  }
};

// Of one layer and some of the points: what they add to a tile of the gradient on the weights; the column after the
// last is the biases'. The gradients begin at 0.
struct MlpWeights {
  static constexpr int TILE = 4, POINTS = 512;

  StudioMlp in;
  MlpColumns given, v_given;

  HD int64_t row_tiles(int layer) const { return (in.widths[layer + 1] + TILE - 1) / TILE; }
  HD int64_t column_tiles(int layer) const { return (in.widths[layer] + TILE) / TILE; }
  HD int64_t count(int layer) const {
    return column_tiles(layer) * row_tiles(layer) * ((given.length + POINTS - 1) / POINTS);
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
    const int column = static_cast<int>(i % column_tiles(l)) * TILE;
    const int row = static_cast<int>(i / column_tiles(l) % row_tiles(l)) * TILE;
    const int64_t share = i / column_tiles(l) / row_tiles(l);
    float sums[TILE][TILE] = {};
    for (int64_t p = share * POINTS; p < min_of((share + 1) * POINTS, given.length); p += 4) {
      MlpFour v[TILE], numbers[TILE];
      for (int t = 0; t < TILE; ++t) {
        const MlpFour ones = {{1.0f, 1.0f, 1.0f, 1.0f}};
        v[t] = four_at(v_given.layer[l + 1] + min_of(row + t, out - 1) * given.length + p);
        numbers[t] = column + t < width ? four_at(given.layer[l] + (column + t) * given.length + p) : ones;
      }
      for (int r = 0; r < TILE; ++r) {
        for (int c = 0; c < TILE; ++c) {
          for (int q = 0; q < 4; ++q) sums[r][c] += v[r].x[q] * numbers[c].x[q];
        }
      }
    }
    for (int r = 0; r < TILE && row + r < out; ++r) {
      for (int c = 0; c < TILE && column + c <= width; ++c) {
        float* weight = in.v_weights[l] + int64_t(row + r) * width + column + c;
        add_to(column + c < width ? weight : in.v_biases[l] + row + r, sums[r][c]);
      }
    }
  }
};

STUDIO_NAMESPACE_END
