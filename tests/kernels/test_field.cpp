// The formulas of fields in double against central differences, and what one thread of CUDA does, thread by thread,
// against the CPU's entries.
#include <cmath>
#include <vector>

#include "check.h"
#include "compositing/elements.h"
#include "hash_grid/elements.h"
#include "marching/elements.h"
#include "planes/elements.h"

using namespace studio;

namespace {

template <class Element>
void for_each(int64_t count, const Element& element) {
  for (int64_t i = 0; i < count; ++i) element(i);
}

void check_close(const Floats& one, const Floats& two, double tolerance) {
  CHECK(one.size() == two.size());
  double largest = 1e-30;
  for (float x : two) largest = std::fmax(largest, std::isnan(x) ? 0 : std::fabs(x));
  for (size_t i = 0; i < one.size(); ++i) {
    CHECK(std::isnan(one[i]) == std::isnan(two[i]));
    if (!std::isnan(one[i])) CHECK(std::fabs(one[i] - two[i]) <= tolerance * largest);
  }
}

// f(x) for x[0] to x[n - 1], whose gradient is `analytic`.
template <class F>
void check_gradient(F&& f, double* x, const double* analytic, int n) {
  for (int i = 0; i < n; ++i) {
    const double kept = x[i], step = 1e-6;
    x[i] = kept + step;
    const double above = f();
    x[i] = kept - step;
    const double below = f();
    x[i] = kept;
    const double numeric = (above - below) / (2 * step);
    CHECK(std::fabs(numeric - analytic[i]) < 1e-7 * (1 + std::fabs(numeric)));
  }
}

void trilinear_matches_differences() {
  Random random;
  double f[3] = {0.3, 0.6, 0.85}, u[3] = {0.7, -0.4, 1.3}, values[8], weights[8];
  for (double& x : values) x = random();
  const auto at = [&] { return Vec3<double>{f[0], f[1], f[2]}; };
  const auto value = [&] {
    corner_weights(at(), weights);
    double sum = 0;
    for (int c = 0; c < 8; ++c) sum += weights[c] * values[c];
    return sum;
  };
  const auto along = [&] {
    corner_weights_along(at(), {u[0], u[1], u[2]}, weights);
    double sum = 0;
    for (int c = 0; c < 8; ++c) sum += weights[c] * values[c];
    return sum;
  };
  const Vec3<double> gradient = corner_gradient(values, at());
  CHECK(std::fabs(gradient.x * u[0] + gradient.y * u[1] + gradient.z * u[2] - along()) < 1e-12);
  const double slopes[3] = {gradient.x, gradient.y, gradient.z};
  check_gradient(value, f, slopes, 3);
  const Vec3<double> second = corner_hessian_times(values, at(), {u[0], u[1], u[2]});
  const double curves[3] = {second.x, second.y, second.z};
  check_gradient(along, f, curves, 3);
}

void planes_match_differences() {
  Random random;
  double texels[4], at[2] = {0.3, 0.8};
  for (double& x : texels) x = random();
  const auto value = [&] { return bilinear_value(texels, at[0], at[1]); };
  const Bilinear<double> sample = bilinear(texels, at[0], at[1]);
  const double slopes[2] = {sample.along_u, sample.along_v};
  CHECK(sample.value == value());
  check_gradient(value, at, slopes, 2);

  Bilinear<double> samples[6];
  double values[6], v_values[6];
  for (int p = 0; p < 6; ++p) values[p] = samples[p].value = p == 2 ? 0 : random();
  product_vjp(1.7, samples, v_values);
  const auto product = [&] { return 1.7 * values[0] * values[1] * values[2] * values[3] * values[4] * values[5]; };
  check_gradient(product, values, v_values, 6);
}

void volume_matches_the_exponential() {
  for (double x : {0.0, 1e-8, 1e-3, 0.2, 0.249, 0.251, 1.0, 7.0, 40.0}) {
    CHECK(std::fabs(light_after(x) / std::exp(-x) - 1) < 1e-6);
    CHECK(std::fabs(opacity_of(x) + std::expm1(-x)) <= 1e-7 * -std::expm1(-x));
  }
  CHECK(light_after(INFINITY) == 0 && opacity_of(INFINITY) == 1 && light_after(1e30) == 0);
  CHECK(std::isnan(light_after(double(NAN))) && std::isnan(opacity_of(double(NAN))));
}

void hash_grid_on_cuda_is_that_on_the_cpu() {
  constexpr int64_t POINTS = 333;
  StudioHashGrid in{};
  in.launch.threads = 2;
  in.points = POINTS, in.levels = 3, in.features = 2;
  in.level[0] = {0, 4, 0}, in.level[1] = {125, 9, 127}, in.level[2] = {253, 50, 255};
  in.entries = 253 + 256;
  Floats positions = random_floats(3 * POINTS, -0.1, 1.1, 1), directions = random_floats(3 * POINTS, -1, 1, 2);
  const Floats table = random_floats(2 * in.entries, -1, 1, 3), v = random_floats(6 * POINTS, -1, 1, 4);
  positions[30] = NAN;
  in.positions = positions.data(), in.table = table.data(), in.v_features = v.data();
  for (const float* along : {static_cast<const float*>(nullptr), static_cast<const float*>(directions.data())}) {
    in.directions = along;
    Floats cpu(6 * POINTS), cuda(6 * POINTS);
    in.result = cpu.data(), run(studio_hash_grid_encode(&in, sizeof in));
    in.result = cuda.data(), for_each(3 * POINTS, HashEncode{{in}});
    check_close(cuda, cpu, 1e-6);
    cpu.assign(2 * in.entries, 7), cuda.assign(2 * in.entries, 0);
    in.result = cpu.data(), run(studio_hash_grid_scatter(&in, sizeof in));
    in.result = cuda.data(), for_each(3 * POINTS, HashScatter{{in}});
    check_close(cuda, cpu, 1e-5);
    cpu.assign(3 * POINTS, 7), cuda.assign(3 * POINTS, 7);
    in.result = cpu.data(), run(studio_hash_grid_slopes(&in, sizeof in));
    in.result = cuda.data(), for_each(POINTS, HashSlopes{in});
    check_close(cuda, cpu, 1e-5);
  }
}

template <int AXES>
void planes_on_cuda_are_those_on_the_cpu() {
  constexpr int64_t POINTS = 300, CHANNELS = 7;
  StudioPlanes in{};
  in.launch.threads = 2;
  in.points = POINTS, in.scales = 2, in.axes = AXES, in.channels = CHANNELS;
  for (int s = 0; s < 2; ++s) {
    in.scale[s].first = in.texels;
    for (int a = 0; a < AXES; ++a) in.scale[s].resolution[a] = 2 + (3 * a + s) % 5;
    for (int a = 0; a < AXES; ++a) {
      for (int b = a + 1; b < AXES; ++b) in.texels += in.scale[s].resolution[a] * in.scale[s].resolution[b];
    }
  }
  Floats positions = random_floats(AXES * POINTS, -0.1, 1.1, 1);
  const Floats planes = random_floats(in.texels * CHANNELS, -1, 1, 2);
  const Floats v = random_floats(2 * POINTS * CHANNELS, -1, 1, 3);
  positions[AXES * 20] = NAN;
  in.positions = positions.data(), in.planes = planes.data(), in.v_features = v.data();
  Floats cpu(v.size()), cuda(v.size());
  in.features = cpu.data(), run(studio_planes_sample(&in, sizeof in));
  in.features = cuda.data(), for_each(2 * POINTS * CHANNELS, PlanesSample<AXES>{{in}});
  check_close(cuda, cpu, 1e-6);
  Floats cpu_planes(planes.size(), 7), cuda_planes(planes.size()), cpu_points(positions.size(), 7);
  Floats cuda_points(positions.size());
  in.v_planes = cpu_planes.data(), in.v_positions = cpu_points.data();
  run(studio_planes_backward(&in, sizeof in));
  in.v_planes = cuda_planes.data(), in.v_positions = cuda_points.data();
  for_each(2 * POINTS * CHANNELS, PlanesBackward<AXES>{{in}});
  check_close(cuda_planes, cpu_planes, 1e-5);
  check_close(cuda_points, cpu_points, 1e-5);
}

// Marching, and compositing of what it finds.
void rays_on_cuda_are_those_on_the_cpu() {
  constexpr int64_t RAYS = 200;
  StudioMarch march{};
  march.launch.threads = 2;
  march.rays = RAYS, march.resolution = 10, march.max_samples = 25, march.step = 0.03f, march.near = 0.1f;
  const Floats origins = random_floats(3 * RAYS, -0.5, 1.5, 1), jitter = random_floats(RAYS, 0, 1, 3);
  Floats directions = random_floats(3 * RAYS, -1, 1, 2);
  directions[9] = NAN;
  for (int axis = 0; axis < 3; ++axis) directions[30 + axis] = 0;
  std::vector<uint32_t> occupied(32);
  Random random{4};
  for (uint32_t& word : occupied) word = static_cast<uint32_t>((random() + 1) * 2147483647.0);
  march.origins = origins.data(), march.directions = directions.data(), march.jitter = jitter.data();
  march.occupied = occupied.data();
  std::vector<int64_t> cpu_counts(RAYS), cuda_counts(RAYS), starts(RAYS + 1);
  march.counts = cpu_counts.data(), run(studio_march_count(&march, sizeof march));
  march.counts = cuda_counts.data(), for_each(RAYS, MarchCount{{march}});
  CHECK(cpu_counts == cuda_counts);
  for (int64_t ray = 0; ray < RAYS; ++ray) starts[ray + 1] = starts[ray] + cpu_counts[ray];
  const int64_t samples = starts[RAYS];
  CHECK(samples > 500);
  Floats cpu_t(samples), cuda_t(samples), cpu_points(3 * samples), cuda_points(3 * samples);
  march.starts = starts.data();
  march.t = cpu_t.data(), march.positions = cpu_points.data(), run(studio_march_write(&march, sizeof march));
  march.t = cuda_t.data(), march.positions = cuda_points.data(), for_each(RAYS, MarchWrite{{march}});
  check_close(cuda_t, cpu_t, 1e-6);
  check_close(cuda_points, cpu_points, 1e-6);

  constexpr int CHANNELS = 4;
  const Floats depths = random_floats(samples, 0, 1, 5), colors = random_floats(6 * samples, -1, 1, 6);
  const Floats v_rays = random_floats(CHANNELS * RAYS, -1, 1, 7), v_samples = random_floats(2 * samples, -1, 1, 8);
  StudioComposite in{};
  in.launch.threads = 2;
  in.rays = RAYS, in.samples = samples, in.channels = CHANNELS, in.min_transmittance = 1e-2f, in.color_stride = 6;
  in.starts = starts.data(), in.optical_depths = depths.data(), in.colors = colors.data(), in.t = cpu_t.data();
  Floats results[2][5], gradients[2][3];
  for (int way = 0; way < 2; ++way) {
    const int64_t sizes[5] = {CHANNELS * RAYS, RAYS, RAYS, samples, samples};
    for (int k = 0; k < 5; ++k) results[way][k].assign(sizes[k], 7);
    in.rgb = results[way][0].data(), in.opacity = results[way][1].data(), in.depth = results[way][2].data();
    in.weights = results[way][3].data(), in.transmittance = results[way][4].data();
    way == 0 ? run(studio_composite(&in, sizeof in)) : for_each(RAYS, Composite{{in}});
    in.v_rgb = v_rays.data(), in.v_opacity = v_rays.data() + 1, in.v_depth = v_rays.data() + 2;
    in.v_weights = v_samples.data(), in.v_transmittance = v_samples.data() + samples;
    const int64_t gradient_sizes[3] = {samples, CHANNELS * samples, samples};
    for (int k = 0; k < 3; ++k) gradients[way][k].assign(gradient_sizes[k], 7);
    in.v_optical_depths = gradients[way][0].data(), in.v_colors = gradients[way][1].data();
    in.v_t = gradients[way][2].data();
    way == 0 ? run(studio_composite_backward(&in, sizeof in)) : for_each(RAYS, CompositeBackward{{in}});
  }
  for (int k = 0; k < 5; ++k) check_close(results[1][k], results[0][k], 1e-5);
  for (int k = 0; k < 3; ++k) check_close(gradients[1][k], gradients[0][k], 1e-5);
}

}  // namespace

int main() {
  trilinear_matches_differences();
  planes_match_differences();
  volume_matches_the_exponential();
  hash_grid_on_cuda_is_that_on_the_cpu();
  planes_on_cuda_are_those_on_the_cpu<2>();
  planes_on_cuda_are_those_on_the_cpu<3>();
  planes_on_cuda_are_those_on_the_cpu<4>();
  rays_on_cuda_are_those_on_the_cpu();
}
