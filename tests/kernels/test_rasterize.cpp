// The C entry of the mesh rasterizer on ordinary and on strange meshes: for the sanitizers, and for equal bits at any
// number of threads.
#include <cmath>

#include "check.h"
#include "rasterize/rasterize.h"

namespace {

// Three materials: plain, translucent, and textured with holes; the faces take turns.
struct Mesh {
  StudioRasterize in{};
  Floats vertices, uvs, vertex_colors, vertex_normals, base_colors, world_to_pixels, background, lights;
  std::vector<int32_t> faces, face_materials, first_level{0, 0, 0, 0}, cut_out{0, 0, 1};
  std::vector<int64_t> levels;
  std::vector<uint8_t> texels;

  Mesh(int cameras, int face_count, int width, int height, int supersample, int texture_side) {
    in.camera_count = cameras, in.vertex_count = face_count + 2, in.face_count = face_count, in.light_count = 2;
    in.width = width, in.height = height, in.supersample = supersample;
    in.near_depth = 0.1f, in.ambient = 0.3f, in.hemisphere = 0.2f;
    vertices = random_floats(3 * in.vertex_count, -0.6, 0.6, 1), uvs = random_floats(6 * face_count, -0.5, 1.5, 2);
    vertex_colors = random_floats(3 * in.vertex_count, 0, 1, 3);
    vertex_normals = random_floats(3 * in.vertex_count, -1, 1, 4);
    background = random_floats(3 * cameras, 0, 1, 5), lights = random_floats(6, -1, 1, 6);
    base_colors = {1, 0.5f, 0.2f, 1, 0.3f, 0.9f, 1, 0.4f, 1, 1, 1, 1};
    Random random{7};
    for (int f = 0; f < face_count; ++f) {
      for (int i = 0; i < 3; ++i) faces.push_back(f + i);
      face_materials.push_back(f % 3);
    }
    for (int side = texture_side; side > 0; side /= 2) {
      levels.insert(levels.end(), {static_cast<int64_t>(texels.size() / 4), side, side});
      for (int i = 0; i < 4 * side * side; ++i) texels.push_back(static_cast<uint8_t>(127 * (random() + 1)));
      ++first_level[3];
    }
    for (int camera = 0; camera < cameras; ++camera) {
      const float s = std::sin(1.0f + camera), t = std::cos(1.0f + camera), f = 1.2f * width;
      const float x = 0.5f * width, y = 0.5f * height;  // pixels of the middle
      const float rows[12] = {f * t - x * s, 0, -f * s - x * t, 2 * x, -y * s, -f, -y * t, 2 * y, -s, 0, -t, 2};
      append(world_to_pixels, Floats(rows, rows + 12));
    }
  }

  Floats run(int threads) {
    in.launch.threads = threads;
    in.vertices = vertices.data(), in.faces = faces.data(), in.face_materials = face_materials.data();
    in.uvs = uvs.data(), in.vertex_colors = vertex_colors.data(), in.vertex_normals = vertex_normals.data();
    in.base_colors = base_colors.data(), in.first_level = first_level.data(), in.cut_out = cut_out.data();
    in.levels = levels.data(), in.texels = texels.data(), in.world_to_pixels = world_to_pixels.data();
    in.background = background.data(), in.lights = lights.data();
    const int64_t pixels = int64_t(in.camera_count) * in.width * in.height;
    Floats images(8 * pixels, 7);
    in.rgb = images.data(), in.alpha = in.rgb + 3 * pixels, in.depth = in.alpha + pixels;
    in.normal = in.depth + pixels;
    ::run(studio_rasterize(&in, sizeof in));
    for (int64_t i = 3 * pixels; i < 4 * pixels; ++i) CHECK(images[i] >= 0 && images[i] <= 1.001f);
    return images;
  }

  Floats check() {
    return check_threads([&](int threads) { return run(threads); });
  }
};

void strange_meshes_are_no_danger() {
  Mesh strange(2, 300, 61, 40, 2, 8);
  make_strange(strange.vertices, 7), make_strange(strange.uvs, 9), make_strange(strange.vertex_normals, 5);
  make_strange(strange.vertex_colors, 11);
  for (int i = 0; i < 9; ++i) strange.faces[60 + i] = 4;  // points rather than triangles
  strange.check();
  Mesh inside(2, 300, 40, 40, 1, 8);
  for (int camera = 0; camera < 2; ++camera) {
    for (int row = 0; row < 3; ++row) inside.world_to_pixels[12 * camera + 4 * row + 3] = 0;
  }
  inside.check();
  Mesh lost(2, 50, 20, 20, 1, 1);
  make_strange(lost.world_to_pixels, 3);
  lost.check();
  Mesh grazing(1, 200, 33, 17, 1, 4);
  for (size_t i = 1; i < grazing.vertices.size(); i += 3) grazing.vertices[i] *= 1e-6f;
  grazing.check();
}

void impossible_pictures_are_refused() {
  const auto refused = [](int width, int height, int supersample, float near_depth) {
    Mesh wrong(1, 1, 4, 4, 1, 1);
    wrong.in.width = width, wrong.in.height = height, wrong.in.supersample = supersample;
    wrong.in.near_depth = near_depth;
    check_refused(studio_rasterize(&wrong.in, sizeof wrong.in), "supersample");
  };
  refused(0, 4, 1, 1), refused(4, 0, 1, 1), refused(4, 4, 0, 1), refused(-4, 4, 1, 1), refused(4, 4, -1, 1);
  refused(32768, 4, 1, 1), refused(4, 16384, 2, 1), refused(1 << 20, 4, 1 << 12, 1);  // of which the product wraps
  refused(INT32_MAX, 4, INT32_MAX, 1), refused(4, 4, 1, 0), refused(4, 4, 1, NAN);
}

}  // namespace

int main() {
  for (int supersample : {1, 2, 3}) Mesh(3, 400, 50, 37, supersample, 16).check();
  Mesh(2, 1, 1, 1, 1, 1).check();
  Mesh(1, 0, 16, 16, 1, 1).check();
  Mesh(0, 5, 8, 8, 1, 1).check();
  Mesh(1, 40, 129, 3, 1, 2).check();
  strange_meshes_are_no_danger();
  impossible_pictures_are_refused();
}
