// The C entries of factored planes on ordinary and on strange points: for the sanitizers, and for equal bits at any
// number of threads.
#include "check.h"
#include "planes/planes.h"

namespace {

struct Sampling {
  StudioPlanes in{};
  Floats positions, planes, v_features;

  Sampling(int64_t points, int scales, int axes, int channels) {
    in.points = points, in.scales = scales, in.axes = axes, in.channels = channels;
    for (int s = 0; s < scales; ++s) {
      in.scale[s].first = in.texels;
      for (int a = 0; a < axes; ++a) in.scale[s].resolution[a] = 2 + (3 * a + s) % 5;
      for (int a = 0; a < axes; ++a) {
        for (int b = a + 1; b < axes; ++b) in.texels += in.scale[s].resolution[a] * in.scale[s].resolution[b];
      }
    }
    positions = random_floats(points * axes, -0.1, 1.1, 1), planes = random_floats(in.texels * channels, -1, 1, 2);
    v_features = random_floats(points * scales * channels, -1, 1, 3);
  }

  // Features, then gradients on planes and positions: both, or one alone.
  Floats run(int threads) {
    in.launch.threads = threads;
    in.positions = positions.data(), in.planes = planes.data(), in.v_features = v_features.data();
    Floats all(v_features.size(), 7), v_planes(planes.size(), 7), v_positions(positions.size(), 7);
    in.features = all.data(), ::run(studio_planes_sample(&in, sizeof in));
    for (int wanted : {1, 2, 3}) {
      in.v_planes = wanted & 1 ? v_planes.data() : nullptr;
      in.v_positions = wanted & 2 ? v_positions.data() : nullptr;
      ::run(studio_planes_backward(&in, sizeof in));
      append(all, v_planes), append(all, v_positions);
    }
    return all;
  }

  Floats check() {
    return check_threads([&](int threads) { return run(threads); });
  }
};

void strange_points_give_finite_gradients() {
  Sampling strange(300, 2, 4, 7);
  make_strange(strange.positions, 5);
  const Floats all = strange.check();
  for (size_t i = strange.v_features.size() + strange.planes.size() + strange.positions.size(); i < all.size(); ++i) {
    CHECK(std::isfinite(all[i]));
  }
}

void impossible_planes_are_refused() {
  const auto refused = [](Sampling wrong, const char* words) {
    wrong.in.positions = wrong.positions.data(), wrong.in.planes = wrong.planes.data();
    Floats features(wrong.v_features.size());
    wrong.in.features = features.data();
    check_refused(studio_planes_sample(&wrong.in, sizeof wrong.in), words);
    wrong.in.v_features = features.data();
    check_refused(studio_planes_backward(&wrong.in, sizeof wrong.in), words);
  };
  const Sampling good(5, 2, 3, 4);
  for (int scales : {-1, 0, 9}) {
    Sampling wrong = good;
    wrong.in.scales = scales, refused(wrong, "1 to 8 scales");
  }
  for (int axes : {0, 1, 5}) {
    Sampling wrong = good;
    wrong.in.axes = axes, refused(wrong, "2 to 4 axes");
  }
  Sampling wrong = good;
  wrong.in.channels = 0, refused(wrong, "at least one channel");
  for (int resolution : {-3, 1, 100, INT32_MAX}) {  // the last two without the texels
    wrong = good;
    wrong.in.scale[1].resolution[2] = resolution, refused(wrong, "room in the planes");
  }
  wrong = good;
  wrong.in.scale[0].first = -1, refused(wrong, "room in the planes");
}

}  // namespace

int main() {
  for (int axes : {2, 3, 4}) {
    for (int channels : {1, 4, 23}) {
      for (int64_t points : {0, 1, 130, 2000}) Sampling(points, 2, axes, channels).check();
    }
  }
  Sampling(700, 8, 4, 3).check();
  Sampling(4000, 1, 4, 16).check();
  strange_points_give_finite_gradients();
  impossible_planes_are_refused();
}
