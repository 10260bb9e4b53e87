// The C entries on ordinary and on strange scenes: for the sanitizers, and for equal bits at any number of threads.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "check.h"
#include "splatting/splatting.h"

namespace {

struct Scene {
  int cameras, splats, terms, width, height;
  std::vector<float> means, quats, scales, opacities, sh, world_to_camera, intrinsics, background;

  Scene(int b, int n, int k, int w, int h) : cameras(b), splats(n), terms(k), width(w), height(h) {
    Random random;
    const auto fill = [&](std::vector<float>& values, int count, float scale) {
      for (int i = 0; i < count; ++i) values.push_back(scale * static_cast<float>(random()));
    };
    fill(means, 3 * n, 0.5f), fill(quats, 4 * n, 1.0f), fill(scales, 3 * n, 0.04f), fill(sh, 3 * k * n, 1.0f);
    for (int i = 0; i < n; ++i) opacities.push_back(0.5f + 0.5f * static_cast<float>(random()));
    for (int c = 0; c < b; ++c) {
      const float s = std::sin(static_cast<float>(c)), t = std::cos(static_cast<float>(c));
      const float pose[16] = {t, 0, -s, 0, 0, -1, 0, 0, -s, 0, -t, 2, 0, 0, 0, 1};
      const float pinhole[9] = {1.5f * w, 0, 0.5f * w, 0, 1.5f * w, 0.5f * h, 0, 0, 1};
      world_to_camera.insert(world_to_camera.end(), pose, pose + 16);
      intrinsics.insert(intrinsics.end(), pinhole, pinhole + 9);
    }
    fill(background, 3 * b, 1.0f);
  }

  // Images, then gradients, in one row.
  std::vector<float> run(int threads) const {
    const int64_t pixels = int64_t(cameras) * width * height;
    std::vector<float> records(16 * cameras * splats), radii(cameras * splats), images(8 * pixels);
    std::vector<int32_t> order(3 * cameras * splats);
    std::vector<int64_t> counts(2 * cameras);
    int64_t bytes = 0, left_out = 1;
    const StudioSplatScene scene{cameras, splats, terms, width, height, 1, {threads, 0, nullptr}, 0, means.data(),
                                 quats.data(), scales.data(), opacities.data(), sh.data(), world_to_camera.data(),
                                 intrinsics.data(), background.data(), nullptr};
    const StudioSplatProject project{scene, records.data(), radii.data(), order.data(), counts.data(), &bytes};
    CHECK(studio_splat_project(&project, sizeof(project)) == 0);
    void* workspace = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    float *rgb = images.data(), *alpha = rgb + 3 * pixels, *depth = alpha + pixels, *normal = depth + pixels;
    const StudioSplatDraw draw{scene, records.data(), order.data(), counts.data(), static_cast<uint8_t*>(workspace),
                               &left_out, rgb, alpha, depth, normal};
    CHECK(studio_splat_draw(&draw, sizeof(draw)) == 0);
    std::vector<float> v(images.size());
    Random random;
    for (float& x : v) x = static_cast<float>(random());
    std::vector<float> gradients((3 + 4 + 3 + 1 + 3 * terms + 2 * cameras) * splats + 3 * cameras);
    float *v_means = gradients.data(), *v_quats = v_means + 3 * splats, *v_scales = v_quats + 4 * splats,
          *v_opacities = v_scales + 3 * splats, *v_sh = v_opacities + splats, *v_probe = v_sh + 3 * terms * splats,
          *v_background = v_probe + 2 * cameras * splats;
    const StudioSplatBackward backward{scene, records.data(), counts.data(), static_cast<uint8_t*>(workspace), rgb,
                                       alpha, depth, normal, v.data(), v.data() + 3 * pixels, v.data() + 4 * pixels,
                                       v.data() + 5 * pixels, v_means, v_quats, v_scales, v_opacities, v_sh,
                                       v_background, v_probe};
    CHECK(studio_splat_backward(&backward, sizeof(backward)) == 0);
    std::free(workspace);
    images.insert(images.end(), gradients.begin(), gradients.end());
    for (float x : images) CHECK(std::isfinite(x));
    return images;
  }

  void check() const {
    const std::vector<float> one = run(1), four = run(4);
    CHECK(one.size() == four.size() && std::memcmp(one.data(), four.data(), one.size() * sizeof(float)) == 0);
  }
};

void make_strange(Scene& scene) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  scene.means[0] = nan, scene.means[4] = inf, scene.means[6] = 1e30f, scene.quats[12] = nan, scene.scales[15] = inf;
  scene.opacities[6] = nan, scene.opacities[7] = inf, scene.sh[3 * scene.terms * 8] = nan, scene.scales[27] = 1e18f;
  for (int i = 0; i < 4; ++i) scene.quats[4 * 10 + i] = 0.0f;
  for (int i = 0; i < 3; ++i) scene.scales[3 * 11 + i] = 0.0f, scene.scales[3 * 12 + i] = 50.0f;
  for (int i = 0; i < 3; ++i) scene.means[3 * 13 + i] = 0.0f, scene.scales[3 * 13 + i] = 1e-20f;
}

}  // namespace

int main() {
  for (int terms : {1, 4, 9, 16}) Scene(3, 500, terms, 50, 37).check();
  Scene(1, 0, 1, 16, 16).check();
  Scene(2, 1, 1, 1, 1).check();
  Scene(0, 5, 1, 8, 8).check();
  Scene(1, 7, 4, 129, 3).check();
  Scene strange(3, 200, 4, 61, 40);
  make_strange(strange);
  strange.check();
  Scene inside(2, 300, 1, 40, 40);
  for (float& x : inside.world_to_camera) x = x == 2.0f ? 0.0f : x;  // the camera stands among the splats
  inside.check();
  Scene pile(1, 20000, 1, 20, 20);  // all on one pixel
  for (float& x : pile.means) x *= 1e-4f;
  for (float& x : pile.scales) x *= 1e-3f;
  pile.check();

  Scene bad(1, 1, 3, 8, 8);
  float record[16], radius;
  int32_t order[3];
  int64_t counts[2], bytes;
  StudioSplatScene scene{1, 1, 3, 8, 8, 1, {1, 0, nullptr}, 0, bad.means.data(), bad.quats.data(), bad.scales.data(),
                         bad.opacities.data(), bad.sh.data(), bad.world_to_camera.data(), bad.intrinsics.data(),
                         bad.background.data(), nullptr};
  const StudioSplatProject project{scene, record, &radius, order, counts, &bytes};
  CHECK(studio_splat_project(&project, sizeof(project) - 8) == 1 &&
        std::strstr(studio_last_error(), "build the kernels anew") != nullptr);
  CHECK(studio_splat_project(&project, sizeof(project)) == 1 &&
        std::strstr(studio_last_error(), "1, 4, 9 or 16") != nullptr);
}
