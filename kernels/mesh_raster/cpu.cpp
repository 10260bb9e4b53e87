// The mesh operators on a CPU. Nothing depends on the number of threads.
#include <string.h>

#include <memory>

#include "mesh_raster/cpu_antialias.h"
#include "mesh_raster/cpu_interpolate.h"
#include "mesh_raster/cpu_rasterize.h"
#include "mesh_raster/cpu_tasks.h"
#include "mesh_raster/cpu_texture.h"

STUDIO_NAMESPACE_BEGIN
namespace {

template <int COUNT>
struct Channels {
  HD operator int64_t() const { return COUNT; }
};

// call(channels), with the usual numbers of channels known to the compiler.
template <class Call>
void with_channels(int64_t channels, Call&& call) {
  switch (channels) {
    case 1: return call(Channels<1>());
    case 2: return call(Channels<2>());
    case 3: return call(Channels<3>());
    case 4: return call(Channels<4>());
    default: return call(channels);
  }
}

// Row by row: on some CPUs the instruction that memcpy takes for long copies is slow.
void copy_rows(const float* from, int64_t channels, int64_t width, int64_t pixels, int y0, int y1, float* to) {
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t row = y0; row < y1; ++row) {
      memcpy(to + c * pixels + row * width, from + c * pixels + row * width, width * sizeof(float));
    }
  }
}

}  // namespace

void mesh_rasterize(const StudioMeshRasterize& task) {
  const StudioMesh& mesh = task.mesh;
  check_mesh(mesh);
  const int64_t pixels = int64_t(mesh.width) * mesh.height;
  const Buffer<ScreenVertex> projected(mesh.views * mesh.vertices);
  const FaceBounds bounds(mesh.views, mesh.faces);
  for_chunks(mesh.launch.threads, mesh.views, mesh.vertices, PIXEL_CHUNK, [&](int64_t view, int64_t first, int64_t end) {
    for (int64_t i = view * mesh.vertices + first; i < view * mesh.vertices + end; ++i) {
      projected[i] = screen_vertex(mesh, mesh.positions + 4 * i);
    }
  });
  const auto seen_from = [&](int64_t view) {
    return ScreenMesh{projected.data() + view * mesh.vertices, indices_of(mesh, view, 0), 2, mesh.width, mesh.height,
                      mesh.cull != 0};
  };
  for_faces(mesh, [&](int64_t view, int64_t first, int64_t end) {
    find_bounds(seen_from(view), first, end, bounds.of(view));
  });
  for_bands(mesh, [&](int64_t view, int y0, int y1) {
    const Layer layer(y0, y1, mesh.width);
    draw_faces(seen_from(view), bounds.of(view), y0, y1, [&](int64_t) -> const Layer& { return layer; }, KeepAll());
    int32_t* face = task.face + view * pixels;
    for (int row = y0; row < y1; ++row) {
      memcpy(face + int64_t(row) * mesh.width, &layer.nearest[layer.at(0, row)], mesh.width * sizeof(int32_t));
    }
    task.slopes == nullptr ? shade<false>(task, view, y0, y1) : shade<true>(task, view, y0, y1);
  });
}

void mesh_rasterize_backward(const StudioMeshRasterizeBackward& task) {
  const StudioMesh& mesh = task.mesh;
  const int64_t parts = RowSums::parts(mesh.views, int64_t(mesh.width) * mesh.height, mesh.vertices);
  const RowSums sums(mesh.views, parts, mesh.vertices, 4, task.v_positions);
  const auto add_rows = task.v_slopes == nullptr
                            ? task.v_depth == nullptr ? add_positions_vjp<false, false> : add_positions_vjp<true, false>
                            : add_positions_vjp<true, true>;
  parallel_for(mesh.launch.threads, mesh.views * parts, [&](int64_t i, int) {
    const int64_t view = i / parts, part = i % parts;
    add_rows(task, view, mesh.height * part / parts, mesh.height * (part + 1) / parts, sums.begin(view, part));
  });
  sums.finish(mesh.launch.threads);
}

void mesh_interpolate(const StudioMeshInterpolateForward& task) {
  const StudioMeshInterpolate& in = task.in;
  check_indices(in.indices, 3 * in.faces * (in.own_faces != 0 ? in.views : 1), in.vertices);
  for_pixels(in.launch.threads, in.views, in.pixels, [&](int64_t view, int64_t first, int64_t end) {
    interpolate_pixels(task, view, first, end);
  });
}

void mesh_interpolate_backward(const StudioMeshInterpolateBackward& task) {
  const StudioMeshInterpolate& in = task.in;
  float* v_weights = task.v_weights;
  const bool shared = in.own_attributes == 0;
  const int64_t arrays = shared ? 1 : in.views;
  const int64_t parts = RowSums::parts(arrays, shared ? in.views * in.pixels : in.pixels, in.vertices);
  // Where one task sums for all pixels, the weights are better left to several.
  const int64_t tasks = arrays * parts;
  if (v_weights != nullptr && (task.v_attributes == nullptr || (tasks == 1 && in.launch.threads > 1))) {
    for_pixels(in.launch.threads, in.views, in.pixels, [&](int64_t view, int64_t first, int64_t end) {
      interpolate_vjp(task, view, first, end, v_weights, nullptr, 0);
    });
    v_weights = nullptr;
  }
  if (task.v_attributes == nullptr) return;
  const RowSums sums(arrays, parts, in.vertices, in.channels, task.v_attributes);
  parallel_for(in.launch.threads, tasks, [&](int64_t i, int) {
    float* v_attributes = sums.begin(i / parts, i % parts);
    const int64_t all = shared ? in.views * in.pixels : in.pixels, start = i / parts * in.pixels;
    int64_t first = start + all * (i % parts) / parts;
    const int64_t end = start + all * (i % parts + 1) / parts;
    while (first < end) {  // view after view
      const int64_t view = first / in.pixels, stop = min_of(end, (view + 1) * in.pixels);
      interpolate_vjp(task, view, first - view * in.pixels, stop - view * in.pixels, v_weights, v_attributes,
                      sums.stride());
      first = stop;
    }
  });
  sums.finish(in.launch.threads);
}

void texture(const StudioTextureForward& task) {
  const StudioTexture& in = task.in;
  with_channels(in.channels, [&](auto channels) {
    for_pixels(in.launch.threads, in.views, in.pixels, [&](int64_t view, int64_t first, int64_t end) {
      for (int64_t pixel = first; pixel < end; ++pixel) texture_at(task, channels, view, pixel);
    });
  });
}

void texture_backward(const StudioTextureBackward& task) {
  const StudioTexture& in = task.in;
  for (int level = 0; task.v_texels[0] != nullptr && level < in.levels; ++level) {
    const int64_t count = in.textures * in.heights[level] * in.widths[level] * in.channels;
    memset(task.v_texels[level], 0, count * sizeof(float));
  }
  with_channels(in.channels, [&](auto channels) {
    if (task.v_uv != nullptr || task.v_level != nullptr) {
      for_pixels(in.launch.threads, in.views, in.pixels, [&](int64_t view, int64_t first, int64_t end) {
        for (int64_t pixel = first; pixel < end; ++pixel) place_vjp_at(task, channels, view, pixel);
      });
    }
    if (task.v_texels[0] != nullptr) texels_vjp(task, channels);
  });
}

void antialias(const StudioAntialiasForward& task) {
  const StudioAntialias& in = task.in;
  check_mesh(in.mesh);
  check_range(in.neighbours, 3 * in.mesh.faces * (in.mesh.own_faces != 0 ? in.mesh.views : 1), -1, 2 * in.mesh.faces,
              "neighbours are those of other faces");
  const Buffer<int8_t> facing(in.mesh.views * in.mesh.faces);
  for_faces(in.mesh, [&](int64_t view, int64_t first, int64_t end) {
    find_facing(in.mesh, view, first, end, facing.data() + view * in.mesh.faces);
  });
  const int64_t chunks = (in.mesh.faces + FACE_CHUNK - 1) / FACE_CHUNK;
  const std::unique_ptr<List<ScreenEdge>[]> silhouettes(new List<ScreenEdge>[in.mesh.views * chunks]);
  for_faces(in.mesh, [&](int64_t view, int64_t first, int64_t end) {
    const int8_t* seen = facing.data() + view * in.mesh.faces;
    list_silhouettes(in, view, first, end, seen, silhouettes[view * chunks + first / FACE_CHUNK]);
  });
  const int64_t width = in.mesh.width, pixels = width * in.mesh.height;
  for_bands(in.mesh, [&](int64_t view, int y0, int y1) {
    const int above = y0 > 0 ? y0 - 1 : 0;
    Marks candidates(in.mesh.width, above, y1);
    for (int64_t chunk = view * chunks; chunk < (view + 1) * chunks; ++chunk) {
      for (const ScreenEdge& edge : silhouettes[chunk]) candidates.add(edge);
    }
    const float* image = in.image + view * in.channels * pixels;
    float* out = task.out + view * in.channels * pixels;
    uint8_t* marks = task.marks + view * pixels;
    memset(marks + y0 * width, 0, (y1 - y0) * width);
    copy_rows(image, in.channels, width, pixels, y0, y1, out);
    const auto row_of = [&](int row) { return &candidates.at(0, row); };
    visit_blends(in, view, y0, y1, row_of, [&](const Blend& blend, int column, int row, uint8_t kind) {
      if (row >= y0) marks[row * width + column] = static_cast<uint8_t>(marks[row * width + column] | kind);
      if (blend.receiver < y0 * width || blend.receiver >= y1 * width) return;
      for (int64_t at = 0; at < in.channels * pixels; at += pixels) {
        out[at + blend.receiver] += blend.weight * (image[at + blend.giver] - image[at + blend.receiver]);
      }
    });
  });
}

void antialias_backward(const StudioAntialiasBackward& task) {
  const StudioAntialias& in = task.in;
  const int64_t width = in.mesh.width, pixels = width * in.mesh.height;
  const int64_t bands = (in.mesh.height + BAND_ROWS - 1) / BAND_ROWS;
  const std::unique_ptr<List<EdgeGradient>[]> edges(new List<EdgeGradient>[in.mesh.views * bands]);
  for_bands(in.mesh, [&](int64_t view, int y0, int y1) {
    List<EdgeGradient>& gradients = edges[view * bands + y0 / BAND_ROWS];
    const float *image = in.image + view * in.channels * pixels, *v_out = task.v_out + view * in.channels * pixels;
    float* v_image = task.v_image + view * in.channels * pixels;
    copy_rows(v_out, in.channels, width, pixels, y0, y1, v_image);
    const auto owns = [&](int64_t pixel) { return pixel >= y0 * width && pixel < y1 * width; };
    const auto row_of = [&](int row) { return task.marks + view * pixels + row * width; };
    visit_blends(in, view, y0, y1, row_of, [&](const Blend& blend, int, int row, uint8_t) {
      const bool gives = owns(blend.giver), takes = owns(blend.receiver);
      float v_weight = 0;
      for (int64_t at = 0; at < in.channels * pixels; at += pixels) {
        const float g = v_out[at + blend.receiver];
        if (gives) v_image[at + blend.giver] += blend.weight * g;
        if (takes) v_image[at + blend.receiver] -= blend.weight * g;
        v_weight += g * (image[at + blend.giver] - image[at + blend.receiver]);
      }
      if (row < y0 || v_weight == 0) return;
      EdgeGradient edge{{blend.crossing.p, blend.crossing.q}, {}};
      blend_vjp(in.mesh, blend, v_weight, edge.v[0], edge.v[1]);
      gradients.add(edge);
    });
  });
  parallel_for(in.mesh.launch.threads, in.mesh.views, [&](int64_t view, int) {
    float* v_positions = task.v_positions + 4 * view * in.mesh.vertices;
    memset(v_positions, 0, 4 * in.mesh.vertices * sizeof(float));
    for (int64_t band = 0; band < bands; ++band) {
      for (const EdgeGradient& edge : edges[view * bands + band]) {
        for (int end = 0; end < 2; ++end) {
          float* to = v_positions + 4 * int64_t(edge.vertices[end]);
          to[0] += edge.v[end].x, to[1] += edge.v[end].y, to[3] += edge.v[end].z;
        }
      }
    }
  });
}

STUDIO_NAMESPACE_END

STUDIO_ENTRY(studio_mesh_rasterize, mesh_rasterize, StudioMeshRasterize)
STUDIO_ENTRY(studio_mesh_rasterize_backward, mesh_rasterize_backward, StudioMeshRasterizeBackward)
STUDIO_ENTRY(studio_mesh_interpolate, mesh_interpolate, StudioMeshInterpolateForward)
STUDIO_ENTRY(studio_mesh_interpolate_backward, mesh_interpolate_backward, StudioMeshInterpolateBackward)
STUDIO_ENTRY(studio_texture, texture, StudioTextureForward)
STUDIO_ENTRY(studio_texture_backward, texture_backward, StudioTextureBackward)
STUDIO_ENTRY(studio_antialias, antialias, StudioAntialiasForward)
STUDIO_ENTRY(studio_antialias_backward, antialias_backward, StudioAntialiasBackward)
