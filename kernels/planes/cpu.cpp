// A point at a time, a vector of channels at a time. The gradient on the planes takes two steps for each few thousand
// points: points in parallel leave the gradient on each plane's sample, then planes in parallel sum these in the order
// of the points, so that the result does not depend on the number of threads.
#include "planes/planes.h"

#include <cmath>
#include <cstring>
#include <stdexcept>

#include "studio/buffer.h"
#include "studio/math/planes.h"
#include "studio/parallel.h"
#include "studio/simd_index.h"

STUDIO_NAMESPACE_BEGIN
namespace {

constexpr int64_t kTask = 128;     // points
constexpr int64_t kChunk = 1024;  // points between the two steps of backward

// What channels are read and written in: whole vectors, then quads, then single ones.
struct Wide {
  using Value = Float;
  static constexpr int SIZE = LANES;
  static HD Float load(const float* from) { return Float::load(from); }
  static HD void store(Float value, float* to) { value.store(to); }
  static HD float sum(Float value) {
    float total = 0;
    for (int lane = 0; lane < LANES; ++lane) total += value[lane];
    return total;
  }
};
struct Narrow {
  using Value = Quad;
  static constexpr int SIZE = 4;
  static HD Quad load(const float* from) { return load_quad(from); }
  static HD void store(Quad value, float* to) { store_quad(value, to); }
  static HD float sum(Quad value) { return (value[0] + value[1]) + (value[2] + value[3]); }
};
struct Single {
  using Value = float;
  static constexpr int SIZE = 1;
  static HD float load(const float* from) { return *from; }
  static HD void store(float value, float* to) { *to = value; }
  static HD float sum(float value) { return value; }
};

// work(Wide or Narrow or Single, first channel)
template <class Work>
HD void for_channels(int channels, Work&& work) {
  int c = 0;
  for (; c + LANES <= channels; c += LANES) work(Wide(), c);
  for (; c + 4 <= channels; c += 4) work(Narrow(), c);
  for (; c < channels; ++c) work(Single(), c);
}

template <class Block>
HD void load_texels(const float* first, const PlaneCell<float>& cell, typename Block::Value (&texels)[4]) {
  texels[0] = Block::load(first), texels[1] = Block::load(first + cell.right);
  texels[2] = Block::load(first + cell.below), texels[3] = Block::load(first + cell.below + cell.right);
}

// The planes of one scale.
struct Scale {
  struct Plane {
    int a, b;  // axes
    int64_t columns, first;  // first: number of the array
  };
  const StudioPlanes& in;
  const int32_t* resolution;
  int count = 0;
  Plane planes[PLANES];

  Scale(const StudioPlanes& in, int s) : in(in), resolution(in.scale[s].resolution) {
    int64_t texel = in.scale[s].first;
    for (int a = 0; a < in.axes; ++a) {
      for (int b = a + 1; b < in.axes; ++b) {
        planes[count++] = {a, b, resolution[a], texel * in.channels};
        texel += int64_t(resolution[a]) * resolution[b];
      }
    }
  }
};

PlaneCell<float> cell_on(const Scale& scale, int p, const AxisCell<float>* axes) {
  const Scale::Plane& plane = scale.planes[p];
  PlaneCell<float> cell = locate_on_plane(axes[plane.a], axes[plane.b], plane.columns, scale.in.channels);
  cell.offset += plane.first;
  return cell;
}

// What the first step of backward leaves for the second, of up to kChunk points.
struct Chunk {
  explicit Chunk(int channels) : v_samples(PLANES * kChunk * channels), axes(kChunk * STUDIO_PLANES_AXES) {}

  Buffer<float> v_samples;       // [planes kChunk c]
  Buffer<AxisCell<float>> axes;  // [kChunk axes]
};

// One point at one scale.
struct Place {
  const Scale& scale;
  AxisCell<float> axes[STUDIO_PLANES_AXES];
  bool valid = true;

  Place(const Scale& scale, int64_t point) : scale(scale) {
    for (int axis = 0; axis < scale.in.axes; ++axis) {
      const float x = scale.in.positions[point * scale.in.axes + axis];
      valid &= x == x;
      axes[axis] = locate_on_axis(x, scale.resolution[axis]);
    }
  }

  PlaneCell<float> on(int p) const { return cell_on(scale, p, axes); }
};

template <int COUNT>
void sample_point(const Scale& scale, int64_t point, float* features) {
  const StudioPlanes& in = scale.in;
  const Place place(scale, point);
  if (!place.valid) {
    for (int c = 0; c < in.channels; ++c) features[c] = NAN;
    return;
  }
  PlaneCell<float> cells[COUNT];
  for (int p = 0; p < COUNT; ++p) cells[p] = place.on(p);
  for_channels(in.channels, [&](auto block, int c) {
    using Block = decltype(block);
    typename Block::Value texels[4], product;
    for (int p = 0; p < COUNT; ++p) {
      load_texels<Block>(in.planes + cells[p].offset + c, cells[p], texels);
      const typename Block::Value value = bilinear_value(texels, cells[p].u, cells[p].v);
      product = p == 0 ? value : product * value;
    }
    Block::store(product, features + c);
  });
}

// The gradient on the planes' samples of point `i` of the chunk, and on its position.
template <int COUNT>
void point_vjp(const Scale& scale, int64_t point, int64_t i, const float* v_features, const Chunk& chunk) {
  const StudioPlanes& in = scale.in;
  const Place place(scale, point);
  for (int axis = 0; axis < in.axes; ++axis) chunk.axes[STUDIO_PLANES_AXES * i + axis] = place.axes[axis];
  float* v_samples = chunk.v_samples.data() + i * in.channels;
  const int64_t stride = kChunk * in.channels;
  if (!place.valid) {
    for (int p = 0; p < COUNT; ++p) memset(v_samples + p * stride, 0, in.channels * sizeof(float));
    return;
  }
  PlaneCell<float> cells[COUNT];
  for (int p = 0; p < COUNT; ++p) cells[p] = place.on(p);
  float slopes[STUDIO_PLANES_AXES] = {};
  for_channels(in.channels, [&](auto block, int c) {
    using Block = decltype(block);
    using Value = typename Block::Value;
    Value texels[4], v_values[COUNT];
    Bilinear<Value> samples[COUNT];
    for (int p = 0; p < COUNT; ++p) {
      load_texels<Block>(in.planes + cells[p].offset + c, cells[p], texels);
      samples[p] = bilinear(texels, cells[p].u, cells[p].v);
    }
    product_vjp(Block::load(v_features + c), samples, v_values);
    for (int p = 0; p < COUNT; ++p) Block::store(v_values[p], v_samples + p * stride + c);
    if (in.v_positions == nullptr) return;
    Value along[STUDIO_PLANES_AXES] = {};
    for (int p = 0; p < COUNT; ++p) {
      Value &a = along[scale.planes[p].a], &b = along[scale.planes[p].b];
      a = a + v_values[p] * samples[p].along_u;
      b = b + v_values[p] * samples[p].along_v;
    }
    for (int axis = 0; axis < in.axes; ++axis) slopes[axis] += Block::sum(along[axis]);
  });
  if (in.v_positions == nullptr) return;
  for (int axis = 0; axis < in.axes; ++axis) {
    in.v_positions[point * in.axes + axis] += place.axes[axis].slope * slopes[axis];
  }
}

// Adds to plane p what the chunk's points left.
void plane_vjp(const Scale& scale, int p, int64_t count, const Chunk& chunk) {
  const StudioPlanes& in = scale.in;
  for (int64_t i = 0; i < count; ++i) {
    const PlaneCell<float> cell = cell_on(scale, p, chunk.axes.data() + STUDIO_PLANES_AXES * i);
    const float right = cell.u, left = 1 - cell.u, below = cell.v, above = 1 - cell.v;
    const float weights[4] = {left * above, right * above, left * below, right * below};
    const float* v_samples = chunk.v_samples.data() + p * kChunk * in.channels;
    const int64_t corners[4] = {0, cell.right, cell.below, cell.below + cell.right};
    for_channels(in.channels, [&](auto block, int c) {
      using Block = decltype(block);
      const typename Block::Value incoming = Block::load(v_samples + i * in.channels + c);
      for (int k = 0; k < 4; ++k) {
        float* texel = in.v_planes + cell.offset + corners[k] + c;
        Block::store(Block::load(texel) + weights[k] * incoming, texel);
      }
    });
  }
}

// call(Constant<planes of a scale>): with the number known beforehand, the samples stay in registers.
template <class Call>
void with_planes(const StudioPlanes& in, Call&& call) {
  if (in.scales < 1 || in.scales > STUDIO_PLANES_SCALES || in.channels < 1) {
    throw std::runtime_error("planes need 1 to 8 scales and at least one channel");
  }
  switch (in.axes) {
    case 2: return call(Constant<1>());
    case 3: return call(Constant<3>());
    case 4: return call(Constant<6>());
    default: throw std::runtime_error("planes need 2 to 4 axes");
  }
}

}  // namespace

void planes_sample(const StudioPlanes& in) {
  with_planes(in, [&](auto count) {
    for (int s = 0; s < in.scales; ++s) {
      const Scale scale(in, s);
      parallel_for(in.launch.threads, (in.points + kTask - 1) / kTask, [&](int64_t task, int) {
        const int64_t end = min_of((task + 1) * kTask, in.points);
        for (int64_t point = task * kTask; point < end; ++point) {
          sample_point<count.value>(scale, point, in.features + (point * in.scales + s) * in.channels);
        }
      });
    }
  });
}

void planes_backward(const StudioPlanes& in) {
  if (in.v_planes != nullptr) memset(in.v_planes, 0, sizeof(float) * in.texels * in.channels);
  if (in.v_positions != nullptr) memset(in.v_positions, 0, sizeof(float) * in.points * in.axes);
  const Chunk chunk(in.channels);
  for (int s = 0; s < in.scales; ++s) {
    const Scale scale(in, s);
    for (int64_t first = 0; first < in.points; first += kChunk) {
      const int64_t points = min_of(kChunk, in.points - first);
      with_planes(in, [&](auto count) {
        parallel_for(in.launch.threads, (points + kTask - 1) / kTask, [&](int64_t task, int) {
          const int64_t end = min_of((task + 1) * kTask, points);
          for (int64_t i = task * kTask; i < end; ++i) {
            const float* v_features = in.v_features + ((first + i) * in.scales + s) * in.channels;
            point_vjp<count.value>(scale, first + i, i, v_features, chunk);
          }
        });
      });
      if (in.v_planes == nullptr) continue;
      parallel_for(in.launch.threads, scale.count,
                   [&](int64_t p, int) { plane_vjp(scale, static_cast<int>(p), points, chunk); });
    }
  }
}

STUDIO_NAMESPACE_END

STUDIO_ENTRY(studio_planes_sample, planes_sample, StudioPlanes)
STUDIO_ENTRY(studio_planes_backward, planes_backward, StudioPlanes)
