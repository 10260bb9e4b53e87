// The C entries of the mesh operators on ordinary and on strange meshes: for the sanitizers, and for equal bits at any
// number of threads.
#include <cmath>

#include "check.h"
#include "mesh_raster/mesh_raster.h"

namespace {

// A strip of triangles (f, f + 1, f + 2), each of which shares edges with those before and behind.
struct Strip {
  StudioMesh mesh{};
  int64_t channels, texture_side;
  Floats positions, attributes;
  std::vector<int32_t> indices, neighbours;
  std::vector<Floats> levels;

  Strip(int views, int faces, int width, int height, int64_t channels, int64_t texture_side)
      : channels(channels), texture_side(texture_side) {
    mesh.views = views, mesh.faces = faces, mesh.vertices = faces + 2, mesh.width = width, mesh.height = height;
    positions = random_floats(4 * views * mesh.vertices, -1, 1, 1);
    for (size_t i = 3; i < positions.size(); i += 4) positions[i] = 1.5f + positions[i];
    attributes = random_floats(mesh.vertices * channels, -1, 1, 2);
    for (int f = 0; f < faces; ++f) {
      for (int i = 0; i < 3; ++i) indices.push_back(f + i);
      // Both run along the shared edge in the same direction: hence the odd numbers.
      neighbours.insert(neighbours.end(), {f + 1 < faces ? 2 * (f + 1) + 1 : -1, -1, f > 0 ? 2 * (f - 1) + 1 : -1});
    }
    for (int64_t side = texture_side; side > 0; side /= 2) {
      levels.push_back(random_floats(side * side * channels, -1, 1, 3));
    }
  }

  int64_t pixels() const { return int64_t(mesh.width) * mesh.height; }

  StudioTexture texture(const Floats& uv, const Floats& level, int wrap) const {
    StudioTexture in{};
    in.views = mesh.views, in.textures = 1, in.channels = channels, in.pixels = pixels();
    in.levels = static_cast<int32_t>(levels.size()), in.wrap = wrap, in.launch = mesh.launch;
    for (size_t l = 0; l < levels.size(); ++l) {
      in.heights[l] = in.widths[l] = texture_side >> l, in.texels[l] = levels[l].data();
    }
    in.uv = uv.data(), in.level = level.data();
    return in;
  }

  // What all operators give, one behind the other, and all their gradients.
  Floats run(int threads) {
    mesh.launch.threads = threads, mesh.positions = positions.data(), mesh.indices = indices.data();
    const int64_t views = mesh.views, all_pixels = views * pixels();
    std::vector<int32_t> face(all_pixels, 7);
    Floats weights(3 * all_pixels, 7), depth(all_pixels, 7), slopes(6 * all_pixels, 7), v_positions(positions.size(), 7);
    const StudioMeshRasterize drawn{mesh, face.data(), weights.data(), depth.data(), slopes.data()};
    ::run(studio_mesh_rasterize(&drawn, sizeof drawn));
    Floats all(face.begin(), face.end());
    append(all, weights), append(all, depth), append(all, slopes);
    const Floats v = random_floats(6 * all_pixels, -1, 1, 4);
    for (int wanted : {0, 1, 2}) {  // weights alone, with depth, with slopes
      StudioMeshRasterizeBackward back{mesh, face.data(), v.data(), nullptr, nullptr, v_positions.data()};
      back.v_depth = wanted > 0 ? v.data() : nullptr, back.v_slopes = wanted > 1 ? v.data() : nullptr;
      ::run(studio_mesh_rasterize_backward(&back, sizeof back));
      append(all, v_positions);
    }

    StudioMeshInterpolate shown{};
    shown.views = views, shown.vertices = mesh.vertices, shown.faces = mesh.faces, shown.channels = channels;
    shown.pixels = pixels(), shown.launch = mesh.launch, shown.attributes = attributes.data();
    shown.indices = indices.data(), shown.face = face.data(), shown.weights = weights.data();
    Floats image(channels * all_pixels, 7), v_attributes(attributes.size(), 7), v_weights(weights.size(), 7);
    const StudioMeshInterpolateForward interpolated{shown, image.data()};
    ::run(studio_mesh_interpolate(&interpolated, sizeof interpolated));
    const Floats v_image = random_floats(channels * all_pixels, -1, 1, 5);
    append(all, image);
    for (int wanted : {1, 2, 3}) {
      const StudioMeshInterpolateBackward back{shown, v_image.data(), wanted & 1 ? v_attributes.data() : nullptr,
                                               wanted & 2 ? v_weights.data() : nullptr};
      ::run(studio_mesh_interpolate_backward(&back, sizeof back));
      append(all, v_attributes), append(all, v_weights);
    }

    Floats uv = random_floats(2 * all_pixels, -3, 3, 6), level = random_floats(all_pixels, -1, 6, 7);
    make_strange(uv, 17), make_strange(level, 19);
    for (int wrap : {0, 1, 2}) {
      const StudioTexture read = texture(uv, level, wrap);
      const StudioTextureForward sampled{read, image.data()};
      ::run(studio_texture(&sampled, sizeof sampled));
      Floats v_uv(uv.size(), 7), v_level(level.size(), 7);
      std::vector<Floats> v_levels = levels;
      StudioTextureBackward back{read, v_image.data(), {}, v_uv.data(), v_level.data()};
      for (size_t l = 0; l < levels.size(); ++l) back.v_texels[l] = v_levels[l].data();
      ::run(studio_texture_backward(&back, sizeof back));
      append(all, image), append(all, v_uv), append(all, v_level);
      for (const Floats& v_level : v_levels) append(all, v_level);
    }

    StudioAntialias edges{mesh, channels, neighbours.data(), face.data(), depth.data(), image.data()};
    Floats smooth(image.size(), 7), v_smooth(image.size(), 7);
    std::vector<uint8_t> marks(all_pixels, 7);
    const StudioAntialiasForward blended{edges, smooth.data(), marks.data()};
    ::run(studio_antialias(&blended, sizeof blended));
    const StudioAntialiasBackward back{edges, marks.data(), v_image.data(), v_smooth.data(), v_positions.data()};
    ::run(studio_antialias_backward(&back, sizeof back));
    append(all, smooth), append(all, Floats(marks.begin(), marks.end())), append(all, v_smooth);
    append(all, v_positions);
    return all;
  }

  Floats check() {
    return check_threads([&](int threads) { return run(threads); });
  }
};

void strange_meshes_are_no_danger() {
  Strip strange(2, 300, 61, 40, 3, 8);
  make_strange(strange.positions, 7), make_strange(strange.attributes, 5);
  for (int i = 0; i < 9; ++i) strange.indices[60 + i] = 4;  // points rather than triangles
  strange.check();
  Strip around(2, 100, 40, 40, 1, 4);  // the camera amid the faces
  for (size_t i = 3; i < around.positions.size(); i += 4) around.positions[i] -= 1.5f;
  around.check();
  Strip grazing(1, 200, 33, 17, 2, 1);
  for (size_t i = 1; i < grazing.positions.size(); i += 4) grazing.positions[i] *= 1e-6f;
  grazing.check();
}

void impossible_meshes_are_refused() {
  const auto refused = [](Strip wrong, const char* words) {
    wrong.mesh.positions = wrong.positions.data(), wrong.mesh.indices = wrong.indices.data();
    const StudioMeshRasterize drawn{wrong.mesh, nullptr, nullptr, nullptr, nullptr};
    check_refused(studio_mesh_rasterize(&drawn, sizeof drawn), words);
    const StudioAntialiasForward blended{{wrong.mesh, 1, nullptr, nullptr, nullptr, nullptr}, nullptr, nullptr};
    check_refused(studio_antialias(&blended, sizeof blended), words);
  };
  const Strip good(1, 5, 8, 8, 1, 1);
  for (int side : {-1, 0, 32768, INT32_MAX}) {
    Strip wrong = good;
    wrong.mesh.width = side, refused(wrong, "width and height must be 1 to 32767");
    wrong = good;
    wrong.mesh.height = side, refused(wrong, "width and height must be 1 to 32767");
  }
  for (int vertex : {-1, 7, INT32_MAX, INT32_MIN}) {
    Strip wrong = good;
    wrong.indices[7] = vertex, refused(wrong, "vertices that are not there");
  }
  Strip wrong = good;
  wrong.mesh.faces = INT32_MAX, refused(wrong, "more than a billion faces");
}

}  // namespace

int main() {
  for (int64_t channels : {1, 3, 4, 7}) Strip(2, 400, 50, 37, channels, 16).check();
  Strip(1, 1, 1, 1, 1, 1).check();
  Strip(1, 0, 16, 16, 3, 1).check();
  Strip(3, 40, 129, 3, 2, 2).check();
  strange_meshes_are_no_danger();
  impossible_meshes_are_refused();
}
