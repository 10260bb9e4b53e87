// The C entries of marching and compositing on ordinary and on strange rays: for the sanitizers, and for equal bits at
// any number of threads.
#include "check.h"
#include "compositing/compositing.h"
#include "marching/marching.h"

namespace {

// Rays through a grid of which some cells are occupied.
struct Rays {
  StudioMarch in{};
  Floats origins, directions, jitter;
  std::vector<uint32_t> occupied;
  std::vector<int64_t> starts;

  Rays(int64_t rays, int resolution) : starts(rays + 1) {
    in.rays = rays, in.resolution = resolution, in.max_samples = 25, in.step = 0.03f, in.near = 0.1f;
    origins = random_floats(3 * rays, -0.5, 1.5, 1), directions = random_floats(3 * rays, -1, 1, 2);
    jitter = random_floats(rays, 0, 1, 3);
    Random random{4};
    occupied.resize((int64_t(resolution) * resolution * resolution + 31) / 32);
    for (uint32_t& word : occupied) word = static_cast<uint32_t>((random() + 1) * 2147483647.0);
  }

  // Counts, t and positions.
  Floats run(int threads) {
    in.launch.threads = threads;
    in.origins = origins.data(), in.directions = directions.data(), in.jitter = jitter.data();
    in.occupied = occupied.data();
    std::vector<int64_t> counts(in.rays, 7);
    in.counts = counts.data(), ::run(studio_march_count(&in, sizeof in));
    for (int64_t ray = 0; ray < in.rays; ++ray) {
      CHECK(counts[ray] >= 0 && counts[ray] <= in.max_samples);
      starts[ray + 1] = starts[ray] + counts[ray];
    }
    Floats t(starts[in.rays], 7), positions(3 * starts[in.rays], 7), all(counts.begin(), counts.end());
    in.starts = starts.data(), in.t = t.data(), in.positions = positions.data();
    ::run(studio_march_write(&in, sizeof in));
    for (float x : t) CHECK(x >= in.near && std::isfinite(x));
    append(all, t), append(all, positions);
    return all;
  }

  Floats check() {
    return check_threads([&](int threads) { return run(threads); });
  }
};

void strange_rays_are_no_danger() {
  Rays strange(400, 10);
  make_strange(strange.origins, 11), make_strange(strange.directions, 13);
  for (int axis = 0; axis < 3; ++axis) strange.directions[30 + axis] = 0, strange.directions[33 + axis] = 1e-40f;
  strange.check();
  Rays all_at_once(1, 1);  // as many steps as a ray may have
  all_at_once.in.step = 1e-12f, all_at_once.in.max_samples = INT32_MAX, all_at_once.in.near = -1;
  all_at_once.origins = {0.5f, 0.5f, 0.5f}, all_at_once.directions = {0, 0, 1}, all_at_once.occupied = {~0u};
  CHECK(all_at_once.run(1)[0] == STUDIO_MARCH_STEPS);
  Rays none(20, 4);
  none.in.max_samples = 0;
  none.check();
  Rays jittered(20, 4);
  make_strange(jittered.jitter, 2);
  for (float& x : jittered.jitter) x = x >= 0 ? x : 0;  // below 0 samples would lie before the ray enters
  jittered.check();
}

void impossible_marches_are_refused() {
  const auto refused = [](Rays wrong) {
    check_refused(studio_march_count(&wrong.in, sizeof wrong.in), "resolution must be 1 to 1024");
    check_refused(studio_march_write(&wrong.in, sizeof wrong.in), "resolution must be 1 to 1024");
  };
  const Rays good(3, 4);
  for (int resolution : {-1, 0, 1025, INT32_MAX}) {
    Rays wrong = good;
    wrong.in.resolution = resolution, refused(wrong);
  }
  for (float step : {0.0f, -1.0f, NAN}) {
    Rays wrong = good;
    wrong.in.step = step, refused(wrong);
  }
  Rays wrong = good;
  wrong.in.max_samples = -1, refused(wrong);
}

// Some samples on each ray, on every third none.
struct Samples {
  StudioComposite in{};
  std::vector<int64_t> starts{0};
  Floats optical_depths, colors, t, v_rays, v_samples;

  Samples(int64_t rays, int channels, int stride) {
    for (int64_t ray = 0; ray < rays; ++ray) starts.push_back(starts.back() + (ray % 3 == 1 ? 0 : ray * 7 % 50));
    in.rays = rays, in.samples = starts.back(), in.channels = channels, in.color_stride = stride;
    in.min_transmittance = 1e-3f;
    optical_depths = random_floats(in.samples, 0, 0.5, 1);
    // The last sample's colour ends with its channels, as where these are columns of a larger matrix.
    colors = random_floats(in.samples == 0 ? 0 : (in.samples - 1) * stride + channels, 0, 1, 2);
    t = random_floats(in.samples, 0, 2, 3);
    v_rays = random_floats(rays * (channels + 2), -1, 1, 4), v_samples = random_floats(2 * in.samples, -1, 1, 5);
  }

  // The five results, then the three gradients, of all results and of rgb alone.
  Floats run(int threads) {
    in.launch.threads = threads;
    in.starts = starts.data(), in.optical_depths = optical_depths.data(), in.colors = colors.data(), in.t = t.data();
    Floats rgb(in.rays * in.channels, 7), opacity(in.rays, 7), depth(in.rays, 7), weights(in.samples, 7);
    Floats transmittance(in.samples, 7);
    in.rgb = rgb.data(), in.opacity = opacity.data(), in.depth = depth.data();
    in.weights = weights.data(), in.transmittance = transmittance.data();
    ::run(studio_composite(&in, sizeof in));
    Floats all = rgb;
    append(all, opacity), append(all, depth), append(all, weights), append(all, transmittance);
    for (bool whole : {true, false}) {
      Floats v_depths(in.samples, 7), v_colors(in.samples * in.channels, 7), v_t(in.samples, 7);
      in.v_rgb = v_rays.data();
      in.v_opacity = whole ? v_rays.data() + in.rays * in.channels : nullptr;
      in.v_depth = whole ? in.v_opacity + in.rays : nullptr;
      in.v_weights = whole ? v_samples.data() : nullptr;
      in.v_transmittance = whole ? v_samples.data() + in.samples : nullptr;
      in.v_optical_depths = v_depths.data(), in.v_colors = v_colors.data(), in.v_t = whole ? v_t.data() : nullptr;
      ::run(studio_composite_backward(&in, sizeof in));
      append(all, v_depths), append(all, v_colors), append(all, v_t);
    }
    return all;
  }

  Floats check() {
    return check_threads([&](int threads) { return run(threads); });
  }
};

void starts_that_do_not_rise_are_refused() {
  for (const std::vector<int64_t>& starts :
       {std::vector<int64_t>{1, 2, 4}, {0, 5, 4}, {0, -1, 4}, {0, 2, 5}, {0, INT64_MAX, 4}}) {
    Samples wrong(2, 3, 3);
    wrong.in.samples = 4, wrong.in.starts = starts.data();
    check_refused(studio_composite(&wrong.in, sizeof wrong.in), "starts must rise");
    check_refused(studio_composite_backward(&wrong.in, sizeof wrong.in), "starts must rise");
  }
}

}  // namespace

int main() {
  for (int resolution : {1, 10, 33}) {
    for (int64_t rays : {0, 1, 200}) Rays(rays, resolution).check();
  }
  strange_rays_are_no_danger();
  impossible_marches_are_refused();
  for (int channels : {1, 3, 7}) {
    for (int64_t rays : {0, 1, 2, 300}) Samples(rays, channels, channels + 2).check();
  }
  Samples strange(200, 3, 4);
  make_strange(strange.optical_depths, 7), make_strange(strange.colors, 9), make_strange(strange.t, 11);
  strange.check();
  starts_that_do_not_rise_are_refused();
}
