// The nearest triangle of each sample on CUDA, in plain code, which the tests also run on the CPU.
//
// Faces is what there is to draw, face i % faces.count() of view i / faces.count():
//   int columns, rows; float most; bool cull;             as sample_box has them
//   bool corners(i, u, a)                                 false where the face is not to be drawn
//   uint64_t* layer(i)                                    the samples [rows columns] that it is drawn to; begin at 0
//   bool keeps(i, triangle, x, y)                         whether it has no hole there
#pragma once

#include <string.h>

#include "studio/cuda.cuh"
#include "studio/index.h"
#include "studio/math/triangle.h"

STUDIO_NAMESPACE_BEGIN

// A sample's nearest face as one number, larger the nearer, and of equally near faces the first: it comes out the same
// in whatever order they are drawn. 0 is none.
HD uint64_t nearest_face(float nearness, int64_t face) {
  uint32_t bits;  // of positive floats are in the floats' order
  memcpy(&bits, &nearness, sizeof bits);
  return static_cast<uint64_t>(bits) << 32 | (UINT32_MAX - static_cast<uint32_t>(face));
}

HD int32_t face_of(uint64_t nearest) {
  return nearest == 0 ? -1 : static_cast<int32_t>(UINT32_MAX - static_cast<uint32_t>(nearest));
}

// Whether one face is strictly nearer than another.
HD bool is_nearer(uint64_t one, uint64_t other) { return one >> 32 > other >> 32; }

// A face, and the box of samples that it may cover.
template <class Faces>
struct BoxedFace {
  int64_t i;
  bool drawn;
  ScreenTriangle<float> triangle;
  int x0, y0, width, height;

  HD BoxedFace(const Faces& faces, int64_t number) : i(number), drawn(false) {
    Vec3<float> u[3];
    float a[3];
    if (!faces.corners(i, u, a)) return;
    const SampleBox<float> box = sample_box(u, a, faces.most, faces.cull, faces.columns, faces.rows);
    drawn = box.reached && set_up(u, a, ABOVE_ZERO, triangle);
    if (!drawn) return;
    x0 = static_cast<int>(box.x0), y0 = static_cast<int>(box.y0);
    width = static_cast<int>(box.x1) - x0 + 1, height = static_cast<int>(box.y1) - y0 + 1;
  }

  HD int64_t samples() const { return int64_t(width) * height; }

  // At sample k of the box.
  HD void draw(const Faces& faces, int64_t k) const {
    const int64_t column = x0 + k % width, row = y0 + k / width;
    const float x = static_cast<float>(column) + 0.5f, y = static_cast<float>(row) + 0.5f;
    if (!covers(triangle, x, y)) return;
    const float nearness = on_screen(triangle.nearness, x, y);
    if (!(nearness > 0 && nearness <= faces.most) || !faces.keeps(i, triangle, x, y)) return;
    raise_to(faces.layer(i) + row * faces.columns + column, nearest_face(nearness, i % faces.count()));
  }
};

// Face i, unless it may cover so many samples that other threads would wait for this one: then it goes into `large`.
template <class Faces>
struct DrawFaces {
  static constexpr int64_t MOST = 64;

  Faces faces;
  int64_t* large;  // [1 + views faces]: how many, and which; the number begins at 0

  HD void operator()(int64_t i) const {
    const BoxedFace<Faces> face(faces, i);
    if (!face.drawn) return;
    if (face.samples() > MOST) {
      large[1 + count_up(large)] = i;
      return;
    }
    for (int64_t k = 0; k < face.samples(); ++k) face.draw(faces, k);
  }
};

// The large faces: some to each group of threads, which share out a face's samples. How many there are is known to the
// device alone.
template <class Faces>
struct DrawLargeFaces {
  static constexpr int64_t GROUP = 256, GROUPS = 1024;

  Faces faces;
  const int64_t* large;

  HD void operator()(int64_t i) const {
    for (int64_t n = i / GROUP; n < large[0]; n += GROUPS) {
      const BoxedFace<Faces> face(faces, large[1 + n]);
      for (int64_t k = i % GROUP; k < face.samples(); k += GROUP) face.draw(faces, k);
    }
  }
};

template <class Faces>
void draw_faces(const StudioLaunch& where, int64_t views, const Faces& faces) {
  const DeviceBuffer<int64_t> large(where, 1 + views * faces.count());
  set_to_zero(where, large.data(), 1);
  launch(where, views * faces.count(), DrawFaces<Faces>{faces, large.data()});
  launch(where, DrawLargeFaces<Faces>::GROUPS * DrawLargeFaces<Faces>::GROUP,
         DrawLargeFaces<Faces>{faces, large.data()});
}

STUDIO_NAMESPACE_END
