// The nearest face of each sample, band by band, then shading, once a sample. Translucent faces have a z-buffer of
// their own.
#include "rasterize/rasterize.h"

#include "rasterize/cpu_zbuffer.h"
#include "rasterize/shading.h"
#include "studio/entry.h"
#include "studio/parallel.h"

STUDIO_NAMESPACE_BEGIN
namespace {

constexpr int kBandRows = 32;  // of pixels

// False where the face cannot be seen. Its nearness is 1 / depth.
bool set_up_face(const ScreenMesh& mesh, int64_t face, Triangle& out) {
  Vector u[3];
  for (int i = 0; i < 3; ++i) u[i] = {mesh.corner(face, i).x, mesh.corner(face, i).y, mesh.corner(face, i).w};
  return set_up(u, {1.f, 1.f, 1.f}, ABOVE_ZERO, out);
}

// The samples of a face that its texture does not cut out.
class KeepOpaque {
 public:
  KeepOpaque(const StudioRasterize& in, const ScreenMesh& mesh) : in_(in), mesh_(mesh) {}

  bool tests(int64_t face) const { return in_.cut_out[in_.face_materials[face]] != 0; }
  void turn_to(int64_t face) { set_up_face(mesh_, face_ = face, triangle_); }
  bool operator()(float x, float y) const { return keeps(in_, face_, triangle_, x, y); }

 private:
  const StudioRasterize& in_;
  const ScreenMesh& mesh_;
  int64_t face_ = 0;
  Triangle triangle_{};
};

void shade(const StudioRasterize& in, const ScreenMesh& mesh, int camera, const Layer& opaque, const Layer* glass) {
  const int k = in.supersample;
  const int64_t width = in.width, area = width * in.height;
  const Buffer<float> buffer(8 * width);
  float* sums = buffer.data();
  Shader shader(in), glass_shader(in);
  const auto set_up = [&](int32_t face, Triangle& out) { set_up_face(mesh, face, out); };
  const float share = 1.f / static_cast<float>(k * k);
  for (int64_t pixel_row = opaque.y0 / k; pixel_row < opaque.y1 / k; ++pixel_row) {
    for (int64_t i = 0; i < 8 * width; ++i) sums[i] = 0;
    for (int64_t row = pixel_row * k; row < (pixel_row + 1) * k; ++row) {
      const float y = static_cast<float>(row) + 0.5f;
      for (int64_t pixel = 0, column = 0; pixel < width; ++pixel) {
        for (const int64_t end = column + k; column < end; ++column) {
          const float x = static_cast<float>(column) + 0.5f;
          const int64_t sample = opaque.at(static_cast<int>(column), static_cast<int>(row));
          float seen_through = 1;
          if (glass != nullptr && glass->nearness[sample] > opaque.nearness[sample]) {
            glass_shader.turn_to(glass->nearest[sample], set_up);
            glass_shader.add(x, y, glass_shader.opacity(), sums + pixel, width);
            seen_through -= glass_shader.opacity();
          }
          if (opaque.nearest[sample] < 0) continue;
          shader.turn_to(opaque.nearest[sample], set_up);
          shader.add(x, y, seen_through, sums + pixel, width);
        }
      }
    }
    const int64_t start = pixel_row * width;
    const float* background = in.background + 3 * camera;
    for (int64_t pixel = 0; pixel < width; ++pixel) {
      const float alpha = sums[7 * width + pixel] * share;
      in.alpha[camera * area + start + pixel] = alpha;
      in.depth[camera * area + start + pixel] = sums[3 * width + pixel] * share;
      for (int c = 0; c < 3; ++c) {
        const int64_t at = (3 * camera + c) * area + start + pixel;
        in.rgb[at] = sums[c * width + pixel] * share + (1 - alpha) * background[c];
        in.normal[at] = sums[(4 + c) * width + pixel] * share;
      }
    }
  }
}

}  // namespace

void rasterize(const StudioRasterize& in) {
  check(in);
  const int k = in.supersample, columns = in.width * k, rows = in.height * k;
  const int64_t cameras = in.camera_count, vertices = in.vertex_count, faces = in.face_count;
  const Buffer<ScreenVertex> projected(cameras * vertices);
  const FaceBounds bounds(cameras, faces);
  const auto seen_by = [&](int64_t camera) {
    return ScreenMesh{projected.data() + camera * vertices, in.faces, 1 / in.near_depth, columns, rows, false};
  };

  const int64_t vertex_chunks = (vertices + FACE_CHUNK - 1) / FACE_CHUNK;
  parallel_for(in.launch.threads, cameras * vertex_chunks, [&](int64_t task, int) {
    const int64_t camera = task / vertex_chunks, begin = task % vertex_chunks * FACE_CHUNK;
    const int64_t end = begin + FACE_CHUNK < vertices ? begin + FACE_CHUNK : vertices;
    for (int64_t i = begin; i < end; ++i) projected[camera * vertices + i] = project_vertex(in, camera, i);
  });

  const int64_t face_chunks = (faces + FACE_CHUNK - 1) / FACE_CHUNK;
  parallel_for(in.launch.threads, cameras * face_chunks, [&](int64_t task, int) {
    const int64_t camera = task / face_chunks, begin = task % face_chunks * FACE_CHUNK;
    const int64_t end = begin + FACE_CHUNK < faces ? begin + FACE_CHUNK : faces;
    const FaceBounds::View all = bounds.of(camera);
    find_bounds(seen_by(camera), begin, end, all);
    for (int64_t face = begin; face < end; ++face) {
      if (!(opacity(in, face) > 0)) all.bounds[face] = NO_BOUNDS;
    }
  });

  bool any_glass = false;
  for (int64_t face = 0; face < faces; ++face) any_glass |= opacity(in, face) < 1;

  const int64_t bands = (in.height + kBandRows - 1) / kBandRows;
  parallel_for(in.launch.threads, cameras * bands, [&](int64_t task, int) {
    const int camera = static_cast<int>(task / bands), first = static_cast<int>(task % bands) * kBandRows * k;
    const int last = first + kBandRows * k < rows ? first + kBandRows * k : rows;
    const Layer opaque(first, last, columns), glass(first, last, columns, any_glass);
    const ScreenMesh seen = seen_by(camera);
    const auto layer_of = [&](int64_t face) -> const Layer& {
      return any_glass && opacity(in, face) < 1 ? glass : opaque;
    };
    draw_faces(seen, bounds.of(camera), first, last, layer_of, KeepOpaque(in, seen));
    shade(in, seen, camera, opaque, any_glass ? &glass : nullptr);
  });
}

STUDIO_NAMESPACE_END

STUDIO_ENTRY(studio_rasterize, rasterize, StudioRasterize)
