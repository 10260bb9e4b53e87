// What one thread of CUDA does: plain code, which the tests also run on the CPU.
#pragma once

#include "planes/planes.h"
#include "studio/math/planes.h"

STUDIO_NAMESPACE_BEGIN

// One channel of one point at one scale: number i of the features.
template <int AXES>
struct PlanesElement {
  static constexpr int COUNT = AXES * (AXES - 1) / 2;
  StudioPlanes in;

  struct Place {
    int64_t point;
    AxisCell<float> axes[AXES];
    PlaneCell<float> cells[COUNT];  // offsets in the whole array, of this channel
    bool valid;
  };

  HD Place place(int64_t i) const {
    Place place;
    const StudioPlaneScale& scale = in.scale[i / in.channels % in.scales];
    place.point = i / in.channels / in.scales;
    place.valid = true;
    for (int axis = 0; axis < AXES; ++axis) {
      const float x = in.positions[place.point * AXES + axis];
      place.valid = place.valid && x == x;
      place.axes[axis] = locate_on_axis(x, scale.resolution[axis]);
    }
    int64_t texel = scale.first;
    for (int a = 0, p = 0; a < AXES; ++a) {
      for (int b = a + 1; b < AXES; ++b, ++p) {
        place.cells[p] = locate_on_plane(place.axes[a], place.axes[b], scale.resolution[a], in.channels);
        place.cells[p].offset += texel * in.channels + i % in.channels;
        texel += int64_t(scale.resolution[a]) * scale.resolution[b];
      }
    }
    return place;
  }

  HD void texels(const PlaneCell<float>& cell, float (&values)[4]) const {
    const float* first = in.planes + cell.offset;
    values[0] = first[0], values[1] = first[cell.right];
    values[2] = first[cell.below], values[3] = first[cell.below + cell.right];
  }
};

template <int AXES>
struct PlanesSample : PlanesElement<AXES> {
  HD void operator()(int64_t i) const {
    const auto place = this->place(i);
    float product = 1, values[4];
    for (const PlaneCell<float>& cell : place.cells) {
      this->texels(cell, values);
      product *= bilinear_value(values, cell.u, cell.v);
    }
    this->in.features[i] = place.valid ? product : NAN;
  }
};

// Both results begin at 0.
template <int AXES>
struct PlanesBackward : PlanesElement<AXES> {
  HD void operator()(int64_t i) const {
    constexpr int COUNT = PlanesElement<AXES>::COUNT;
    const StudioPlanes& in = this->in;
    const auto place = this->place(i);
    if (!place.valid) return;
    Bilinear<float> samples[COUNT];
    float values[4], v_values[COUNT];
    for (int p = 0; p < COUNT; ++p) {
      this->texels(place.cells[p], values);
      samples[p] = bilinear(values, place.cells[p].u, place.cells[p].v);
    }
    product_vjp(in.v_features[i], samples, v_values);
    for (int p = 0; p < COUNT && in.v_planes != nullptr; ++p) {
      const PlaneCell<float>& cell = place.cells[p];
      float* first = in.v_planes + cell.offset;
      add_to(first, v_values[p] * (1 - cell.u) * (1 - cell.v));
      add_to(first + cell.right, v_values[p] * cell.u * (1 - cell.v));
      add_to(first + cell.below, v_values[p] * (1 - cell.u) * cell.v);
      add_to(first + cell.below + cell.right, v_values[p] * cell.u * cell.v);
    }
    if (in.v_positions == nullptr) return;
    float along[AXES] = {};
    for (int a = 0, p = 0; a < AXES; ++a) {
      for (int b = a + 1; b < AXES; ++b, ++p) {
        along[a] += v_values[p] * samples[p].along_u;
        along[b] += v_values[p] * samples[p].along_v;
      }
    }
    for (int axis = 0; axis < AXES; ++axis) {
      add_to(in.v_positions + place.point * AXES + axis, place.axes[axis].slope * along[axis]);
    }
  }
};

STUDIO_NAMESPACE_END
