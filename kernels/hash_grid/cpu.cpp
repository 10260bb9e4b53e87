// Points are worked on a vector at a time, level by level, so that a level's part of the table stays in the cache.
// Only the fetching of entries goes point by point: a row of features is one load, and gathers are no faster.
//
// The gradient on the table is summed in the order of the points, by one task a level, or several where threads would
// have nothing to do: each goes through all points and adds to its own entries. So it does not depend on the number of
// threads.
#include "hash_grid/hash_grid.h"

#include <cstring>
#include <stdexcept>

#include "studio/buffer.h"
#include "studio/math/hash_grid.h"
#include "studio/parallel.h"
#include "studio/simd_index.h"

STUDIO_NAMESPACE_BEGIN
namespace {

constexpr int64_t kVectors = 256;  // of points in one task
constexpr int64_t kPoints = kVectors * LANES;
constexpr int kRowsAhead = 32;  // to fetch before their turn, where one level of all points' rows is read

struct PointVector {
  CubePoint<Float> at;
  Vec3<Float> direction;
};

Vec3<Float> load_vec3(const float* values, int64_t first, int lanes) {
  alignas(64) float turned[3][LANES] = {};
  for (int lane = 0; lane < lanes; ++lane) {
    for (int axis = 0; axis < 3; ++axis) turned[axis][lane] = values[3 * (first + lane) + axis];
  }
  return {Float::load(turned[0]), Float::load(turned[1]), Float::load(turned[2])};
}

int lanes_at(const StudioHashGrid& in, int64_t first) {
  return static_cast<int>(in.points - first < LANES ? in.points - first : LANES);
}

// The vectors of points from `first` on, at most kVectors.
int64_t load_points(const StudioHashGrid& in, int64_t first, PointVector* points) {
  int64_t count = 0;
  for (; count < kVectors && first + count * LANES < in.points; ++count) {
    const int64_t begin = first + count * LANES;
    PointVector& point = points[count];
    point.at = into_cube(load_vec3(in.positions, begin, lanes_at(in, begin)));
    if (in.directions != nullptr) {
      point.direction = times(point.at.slope, load_vec3(in.directions, begin, lanes_at(in, begin)));
    }
  }
  return count;
}

// Entries of a vector of points around its corners, and their weights or the weights' derivatives.
struct Corners {
  alignas(64) uint32_t entries[8][LANES];
  alignas(64) float weights[8][LANES];

  Vec3<Float> locate_in(const StudioHashLevel& level, const Vec3<Float>& position) {
    RawUint found[8];
    const Vec3<Float> f = locate(level, position, found);
    memcpy(entries, found, sizeof entries);
    return f;
  }

  void weigh(const StudioHashLevel& level, const PointVector& point, bool along) {
    const Vec3<Float> f = locate_in(level, point.at.position);
    Float found[8];
    if (along) {
      corner_weights_along(f, Float(static_cast<float>(level.resolution)) * point.direction, found);
    } else {
      corner_weights(f, found);
    }
    memcpy(weights, found, sizeof weights);
  }
};

template <int F>
void encode_points(const StudioHashGrid& in, int64_t first) {
  Buffer<PointVector> points(kVectors);
  const int64_t vectors = load_points(in, first, points.data()), stride = int64_t(in.levels) * F;
  Corners corners;
  for (int l = 0; l < in.levels; ++l) {
    const float* table = in.table + F * in.level[l].first;
    for (int64_t v = 0; v < vectors; ++v) {
      corners.weigh(in.level[l], points[v], in.directions != nullptr);
      const int64_t begin = first + v * LANES;
      const int lanes = lanes_at(in, begin);
      float* result = in.result + begin * stride + l * F;
      for (int lane = 0; lane < lanes; ++lane) {
        Row<F> sum = Row<F>::zero();
        for (int c = 0; c < 8; ++c) {
          sum = sum.plus(corners.weights[c][lane], Row<F>::load(table + F * int64_t(corners.entries[c][lane])));
        }
        sum.store(result + lane * stride);
      }
    }
  }
  if (in.directions != nullptr) return;
  for (int64_t v = 0; v < vectors; ++v) {
    const uint32_t valid = points[v].at.valid.bits();
    const int64_t begin = first + v * LANES;
    for (int lane = 0; lane < lanes_at(in, begin); ++lane) {
      if (valid >> lane & 1) continue;
      for (int64_t i = 0; i < stride; ++i) in.result[(begin + lane) * stride + i] = NAN;
    }
  }
}

int64_t end_of(const StudioHashGrid& in, int l) { return l + 1 < in.levels ? in.level[l + 1].first : in.entries; }

// Entries of a level from begin to end. Of a level without a hash, these are whole layers along z.
struct Part {
  int64_t begin, end;

  Part(const StudioHashGrid& in, int l, int64_t number, int64_t count) {
    const StudioHashLevel& level = in.level[l];
    const int64_t side = int64_t(level.resolution) + 1, layers = level.mask == 0 ? side : 1;
    begin = layers * number / count * side * side, end = layers * (number + 1) / count * side * side;
    if (number + 1 == count) end = end_of(in, l) - level.first;
  }
  bool holds(int64_t entry) const { return begin <= entry && entry < end; }
};

template <int F>
void scatter_part(const StudioHashGrid& in, int l, const Part& part) {
  if (part.begin == part.end) return;
  Buffer<PointVector> points(kVectors);
  const StudioHashLevel& level = in.level[l];
  const int64_t stride = int64_t(in.levels) * F;
  float* table = in.result + F * level.first;
  memset(table + F * part.begin, 0, static_cast<size_t>(part.end - part.begin) * F * sizeof(float));
  Corners corners;
  for (int64_t first = 0; first < in.points; first += kPoints) {
    const int64_t vectors = load_points(in, first, points.data());
    for (int64_t v = 0; v < vectors; ++v) {
      corners.weigh(level, points[v], in.directions != nullptr);
      const int64_t begin = first + v * LANES;
      const int lanes = lanes_at(in, begin);
      const uint32_t valid = points[v].at.valid.bits();
      const float* v_features = in.v_features + begin * stride + l * F;
      for (int lane = 0; lane < lanes; ++lane) {
        __builtin_prefetch(v_features + (lane + kRowsAhead) * stride);
        if (!(valid >> lane & 1)) continue;
        const Row<F> incoming = Row<F>::load(v_features + lane * stride);
        for (int layer = 0; layer < 8; layer += 4) {
          if (!part.holds(corners.entries[layer][lane])) continue;
          for (int c = layer; c < layer + 4; ++c) {
            float* entry = table + F * int64_t(corners.entries[c][lane]);
            Row<F>::load(entry).plus(corners.weights[c][lane], incoming).store(entry);
          }
        }
      }
    }
  }
}

template <int F>
void slope_points(const StudioHashGrid& in, int64_t first) {
  Buffer<PointVector> points(kVectors);
  Buffer<Vec3<Float>> sums(kVectors);
  const int64_t vectors = load_points(in, first, points.data()), stride = int64_t(in.levels) * F;
  for (int64_t v = 0; v < vectors; ++v) sums[v] = {0.0f, 0.0f, 0.0f};
  Corners corners;
  for (int l = 0; l < in.levels; ++l) {
    const float* table = in.table + F * in.level[l].first;
    const Float side = static_cast<float>(in.level[l].resolution);
    for (int64_t v = 0; v < vectors; ++v) {
      const Vec3<Float> f = corners.locate_in(in.level[l], points[v].at.position);
      const int64_t begin = first + v * LANES;
      const int lanes = lanes_at(in, begin);
      const float* v_features = in.v_features + begin * stride + l * F;
      for (int lane = 0; lane < lanes; ++lane) {
        const Row<F> incoming = Row<F>::load(v_features + lane * stride);
        for (int c = 0; c < 8; ++c) {
          corners.weights[c][lane] = incoming.dot(Row<F>::load(table + F * int64_t(corners.entries[c][lane])));
        }
      }
      Float values[8];
      for (int c = 0; c < 8; ++c) values[c] = Float::load(corners.weights[c]);
      sums[v] += side * (in.directions == nullptr
                             ? corner_gradient(values, f)
                             : side * corner_hessian_times(values, f, points[v].direction));
    }
  }
  for (int64_t v = 0; v < vectors; ++v) {
    const Vec3<Float> zero = {0.0f, 0.0f, 0.0f};
    const Vec3<Float> sum = select(points[v].at.valid, times(points[v].at.slope, sums[v]), zero);
    const int64_t begin = first + v * LANES;
    for (int lane = 0; lane < lanes_at(in, begin); ++lane) {
      float* result = in.result + 3 * (begin + lane);
      result[0] = sum.x[lane], result[1] = sum.y[lane], result[2] = sum.z[lane];
    }
  }
}

void check(const StudioHashGrid& in) {
  if (in.levels < 1 || in.levels > STUDIO_HASH_GRID_LEVELS) throw std::runtime_error("a hash grid has 1 to 32 levels");
  for (int l = 0; l < in.levels; ++l) {
    const StudioHashLevel& level = in.level[l];
    const bool possible = level.resolution >= 1 && level.resolution <= 1 << 20 && level.first >= 0;
    const int64_t side = possible ? int64_t(level.resolution) + 1 : 0, room = end_of(in, l) - level.first;
    const int64_t entries = level.mask == 0 ? side * side * side : int64_t(level.mask) + 1;
    if (!possible || entries > min_of(room, 1ll << 32)) {
      throw std::runtime_error("a level has 1 to 2^20 cells along a side and room in the table for its entries");
    }
  }
}

// call(Constant<features>)
template <class Call>
void with_features(const StudioHashGrid& in, Call&& call) {
  check(in);
  switch (in.features) {
    case 1: return call(Constant<1>());
    case 2: return call(Constant<2>());
    case 4: return call(Constant<4>());
    case 8: return call(Constant<8>());
    default: throw std::runtime_error("an entry must have 1, 2, 4 or 8 features");
  }
}

int64_t tasks(const StudioHashGrid& in) { return (in.points + kPoints - 1) / kPoints; }

}  // namespace

void hash_grid_encode(const StudioHashGrid& in) {
  with_features(in, [&](auto features) {
    parallel_for(in.launch.threads, tasks(in),
                 [&](int64_t task, int) { encode_points<features.value>(in, task * kPoints); });
  });
}

void hash_grid_scatter(const StudioHashGrid& in) {
  with_features(in, [&](auto features) {
    const int64_t parts = max_of(in.launch.threads / in.levels, 1);
    parallel_for(in.launch.threads, in.levels * parts, [&](int64_t task, int) {
      const int l = static_cast<int>(task / parts);
      scatter_part<features.value>(in, l, Part(in, l, task % parts, parts));
    });
  });
}

void hash_grid_slopes(const StudioHashGrid& in) {
  with_features(in, [&](auto features) {
    parallel_for(in.launch.threads, tasks(in),
                 [&](int64_t task, int) { slope_points<features.value>(in, task * kPoints); });
  });
}

STUDIO_NAMESPACE_END

STUDIO_ENTRY(studio_hash_grid_encode, hash_grid_encode, StudioHashGrid)
STUDIO_ENTRY(studio_hash_grid_scatter, hash_grid_scatter, StudioHashGrid)
STUDIO_ENTRY(studio_hash_grid_slopes, hash_grid_slopes, StudioHashGrid)
