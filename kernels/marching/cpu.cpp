// A vector of steps of one ray at a time. Empty space is tested like any other: the test of a whole vector costs about
// as much as finding the next cell's border would.
#include "marching/marching.h"

#include <stdexcept>

#include "studio/math/marching.h"
#include "studio/parallel.h"
#include "studio/simd_index.h"

STUDIO_NAMESPACE_BEGIN
namespace {

constexpr int64_t kTask = 64;  // rays

Vec3<float> vec3_at(const float* values, int64_t i) { return {values[3 * i], values[3 * i + 1], values[3 * i + 2]}; }

// A bit for each lane whose cell is occupied.
uint32_t occupied_lanes(const uint32_t* bits, RawUint cells) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  const __m512i cell = reinterpret_cast<__m512i>(cells);
  const __m512i words = _mm512_i32gather_epi32(_mm512_srli_epi32(cell, 5), bits, 4);
  const __m512i bit = _mm512_sllv_epi32(_mm512_set1_epi32(1), _mm512_and_si512(cell, _mm512_set1_epi32(31)));
  return _mm512_test_epi32_mask(words, bit);
#else
  uint32_t lanes = 0;
  for (int lane = 0; lane < LANES; ++lane) lanes |= uint32_t(is_occupied(bits, cells[lane])) << lane;
  return lanes;
#endif
}

// visit(t and points of a vector of steps, bits of the lanes that are samples, how many there are), up to max_samples.
template <class Visit>
void march_ray(const StudioMarch& in, int64_t ray, Visit&& visit) {
  const Vec3<float> origin = vec3_at(in.origins, ray), direction = vec3_at(in.directions, ray);
  const Span span = cross_cube(origin, direction, in.near);
  Float lane_numbers;
  for (int lane = 0; lane < LANES; ++lane) lane_numbers.raw[lane] = static_cast<float>(lane);
  int left = in.max_samples;
  for (int k = 0; k < STUDIO_MARCH_STEPS && left > 0; k += LANES) {
    const Float t = time_of(span.enter, Float(static_cast<float>(k)) + lane_numbers, in.jitter[ray], in.step);
    const uint32_t inside = (t < Float(span.leave)).bits();
    if (inside == 0) break;
    const Vec3<Float> point = point_at(origin, direction, t);
    uint32_t samples = inside & occupied_lanes(in.occupied, cell_at(point, in.resolution));
    int count = __builtin_popcount(samples);
    for (; count > left; --count) samples &= ~(1u << (31 - __builtin_clz(samples)));
    if (count > 0) visit(t, point, samples, count);
    left -= count;
  }
}

template <class Work>
void for_rays(const StudioMarch& in, Work&& work) {
  if (in.resolution < 1 || in.resolution > 1024 || !(in.step > 0) || in.max_samples < 0) {
    throw std::runtime_error("resolution must be 1 to 1024, step positive and max_samples not negative");
  }
  parallel_for(in.launch.threads, (in.rays + kTask - 1) / kTask, [&](int64_t task, int) {
    const int64_t end = min_of((task + 1) * kTask, in.rays);
    for (int64_t ray = task * kTask; ray < end; ++ray) work(ray);
  });
}

}  // namespace

void march_count(const StudioMarch& in) {
  for_rays(in, [&](int64_t ray) {
    int64_t total = 0;
    march_ray(in, ray, [&](Float, const Vec3<Float>&, uint32_t, int count) { total += count; });
    in.counts[ray] = total;
  });
}

void march_write(const StudioMarch& in) {
  for_rays(in, [&](int64_t ray) {
    int64_t next = in.starts[ray];
    march_ray(in, ray, [&](Float t, const Vec3<Float>& point, uint32_t samples, int) {
      for (; samples != 0; samples &= samples - 1, ++next) {
        const int lane = __builtin_ctz(samples);
        float* position = in.positions + 3 * next;
        in.t[next] = t[lane];
        position[0] = point.x[lane], position[1] = point.y[lane], position[2] = point.z[lane];
      }
    });
  });
}

STUDIO_NAMESPACE_END

STUDIO_ENTRY(studio_march_count, march_count, StudioMarch)
STUDIO_ENTRY(studio_march_write, march_write, StudioMarch)
