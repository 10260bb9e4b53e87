// A point at a time, a vector of channels at a time. The gradient on the planes takes two steps for each few hundred
// points: points in parallel leave the gradient on each plane's sample, then planes in parallel sum these in the order
// of the points, so that the result does not depend on the number of threads. All steps are tasks of one loop, and the
// points of the next chunks go on while a plane is summed: loops one after the other would wait for each other's last
// threads a hundred times.
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

constexpr int64_t kTask = 128;   // points
constexpr int64_t kChunk = 512;  // points between the two steps of backward
constexpr int64_t kChunkTasks = kChunk / kTask;
constexpr int64_t kChunks = 3;   // in memory at once

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
  float* v_samples;       // [planes kChunk c]
  AxisCell<float>* axes;  // [kChunk axes]
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
  float* v_samples = chunk.v_samples + i * in.channels;
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
    const PlaneCell<float> cell = cell_on(scale, p, chunk.axes + STUDIO_PLANES_AXES * i);
    const float right = cell.u, left = 1 - cell.u, below = cell.v, above = 1 - cell.v;
    const float weights[4] = {left * above, right * above, left * below, right * below};
    const float* v_samples = chunk.v_samples + p * kChunk * in.channels;
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

void check(const StudioPlanes& in) {
  if (in.scales < 1 || in.scales > STUDIO_PLANES_SCALES || in.channels < 1) {
    throw std::runtime_error("planes need 1 to 8 scales and at least one channel");
  }
  if (in.axes < 2 || in.axes > STUDIO_PLANES_AXES) throw std::runtime_error("planes need 2 to 4 axes");
  for (int s = 0; s < in.scales; ++s) {
    const StudioPlaneScale& scale = in.scale[s];
    int64_t room = scale.first < 0 ? -1 : in.texels - scale.first;
    for (int a = 0; a < in.axes; ++a) {
      for (int b = a + 1; b < in.axes && room >= 0; ++b) room -= int64_t(scale.resolution[a]) * scale.resolution[b];
      if (scale.resolution[a] < 2) room = -1;
    }
    if (room < 0) throw std::runtime_error("a scale has at least 2 texels along an axis and room in the planes");
  }
}

// call(Constant<planes of a scale>): with the number known beforehand, the samples stay in registers.
template <class Call>
void with_planes(const StudioPlanes& in, Call&& call) {
  check(in);
  switch (in.axes) {
    case 2: return call(Constant<1>());
    case 3: return call(Constant<3>());
    default: return call(Constant<6>());
  }
}

// Chunks are numbered scale after scale. In the loop, the tasks of a chunk's points are followed by one for each plane
// that sums the chunk before.
template <int COUNT>
void backward(const StudioPlanes& in) {
  const bool to_planes = in.v_planes != nullptr;
  if (to_planes) memset(in.v_planes, 0, sizeof(float) * in.texels * in.channels);
  if (in.v_positions != nullptr) memset(in.v_positions, 0, sizeof(float) * in.points * in.axes);
  const int64_t size = PLANES * kChunk * in.channels, cells = STUDIO_PLANES_AXES * kChunk;
  const Buffer<float> v_samples(kChunks * size);
  const Buffer<AxisCell<float>> axes(kChunks * cells);
  const auto in_memory = [&](int64_t k) {
    return Chunk{v_samples.data() + k % kChunks * size, axes.data() + k % kChunks * cells};
  };
  Progress sampled[kChunks], summed[COUNT];  // tasks of a place's points; chunks of a plane
  const auto wait_for_points = [&](int64_t k) { sampled[k % kChunks].wait_for((k / kChunks + 1) * kChunkTasks); };

  const int64_t of_scale = (in.points + kChunk - 1) / kChunk, chunks = in.scales * of_scale;
  const int64_t group = kChunkTasks + (to_planes ? COUNT : 0);
  parallel_for(in.launch.threads, (chunks + 1) * group, [&](int64_t task, int) {
    const int64_t step = task % group, k = step < kChunkTasks ? task / group : task / group - 1;
    if (k < 0 || k >= chunks) return;
    const Scale scale(in, static_cast<int>(k / of_scale));
    const int64_t first = k % of_scale * kChunk, points = min_of(kChunk, in.points - first);
    if (step < kChunkTasks) {
      if (k >= kChunks) wait_for_points(k - kChunks);  // whose memory this chunk takes over
      for (int p = 0; to_planes && p < COUNT; ++p) summed[p].wait_for(k - kChunks + 1);
      if (k >= of_scale) wait_for_points(k - of_scale);  // which add to the same positions' gradients
      for (int64_t i = step * kTask; i < min_of((step + 1) * kTask, points); ++i) {
        const float* v_features = in.v_features + ((first + i) * in.scales + k / of_scale) * in.channels;
        point_vjp<COUNT>(scale, first + i, i, v_features, in_memory(k));
      }
      sampled[k % kChunks].add_one();
    } else {
      const int p = static_cast<int>(step - kChunkTasks);
      wait_for_points(k), summed[p].wait_for(k);
      plane_vjp(scale, p, points, in_memory(k));
      summed[p].add_one();
    }
  });
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
  with_planes(in, [&](auto planes) { backward<planes.value>(in); });
}

STUDIO_NAMESPACE_END

STUDIO_ENTRY(studio_planes_sample, planes_sample, StudioPlanes)
STUDIO_ENTRY(studio_planes_backward, planes_backward, StudioPlanes)
