// Neighbouring pixels as vectors, one a lane. Faces are so small that branches on where they begin and end would be
// guessed wrongly; hence the work is the same for all lanes, with or without a face.
#pragma once

#include "mesh_raster/cpu_tasks.h"
#include "studio/simd_index.h"

STUDIO_NAMESPACE_BEGIN

inline void store_lanes(Float values, float* to, int64_t count) {
  if (count >= LANES) return values.store(to);
  for (int64_t lane = 0; lane < count; ++lane) to[lane] = values[static_cast<int>(lane)];
}

inline Float load_lanes(const float* from, int64_t count) {
  if (from == nullptr) return 0.0f;
  if (count >= LANES) return Float::load(from);
  alignas(64) float values[LANES] = {};
  for (int64_t lane = 0; lane < count; ++lane) values[lane] = from[lane];
  return Float::load(values);
}

// Four numbers a lane.
HD void spread(const Float (&columns)[4], float (&values)[LANES][4]) {
  float* rows[LANES];
  for (int lane = 0; lane < LANES; ++lane) rows[lane] = values[lane];
  store_rows(columns, rows, LANES);
}

// Which faces LANES neighbouring pixels show.
class PixelLanes {
 public:
  // The pixels from `first` on: LANES, or those before `end`.
  PixelLanes(const int32_t* face, int64_t first, int64_t end, int64_t faces) {
    alignas(64) int32_t tail[LANES + 1];
    const int32_t* here = face + first;
    if (end - first <= LANES) {
      for (int lane = 0; lane <= LANES; ++lane) tail[lane] = first + lane < end ? here[lane] : -1;
      here = tail;
    }
    const RawInt shown = load_ints(here);
    is_empty_ = is_negative(shown);
    covered_ = ~is_empty_.bits() & ALL;
    if (covered_ == 0) return;
    if (is_negative(shown > static_cast<int32_t>(faces - 1) - RawInt{}).bits() != 0) refuse_face();
    last_ = ~is_negative(shown == load_ints(here + 1)).bits() & ALL;
    const RawInt real = shown & ~(shown >> 31);
    memcpy(faces_, &real, sizeof real);
    // Read lane by lane from memory, which is faster than taking a vector apart.
    __asm__("" : "+m"(faces_));
  }

  bool any() const { return covered_ != 0; }

  // The vertices of the lane's face; those of some face where it shows none.
  HD const int32_t* vertices(const int32_t* indices, int lane) const { return indices + 3 * int64_t(faces_[lane]); }

  // The values, and `other` in lanes without a face.
  HD Float or_else(Float values, float other) const { return select(is_empty_, Float(other), values); }

  // For each run of lanes that show the same face and for each of its corners: adds the sum of term(corner, lane), a
  // quad, to the four numbers that row_of(corner, lane) points to.
  template <class Term, class RowOf>
  HD void add_to_corners(Term&& term, RowOf&& row_of) const {
    static constexpr int32_t KEEP[2][4] = {{-1, -1, -1, -1}, {0, 0, 0, 0}};
    Quad sums[3] = {}, totals[3][LANES];
    int lanes[LANES], run = 0;
    uint32_t is_first = 1;
    for (int lane = 0; lane < LANES; ++lane) {
      QuadInt keep;
      memcpy(&keep, KEEP[is_first], sizeof keep);
      for (int corner = 0; corner < 3; ++corner) {
        sums[corner] = reinterpret_cast<Quad>(reinterpret_cast<QuadInt>(sums[corner]) & keep) + term(corner, lane);
        totals[corner][run] = sums[corner];
      }
      lanes[run] = lane;
      is_first = last_ >> lane & 1;
      run += static_cast<int>(is_first);
    }
    run += static_cast<int>(1 - is_first);
    for (int i = 0; i < run; ++i) {
      if ((covered_ >> lanes[i] & 1) == 0) continue;
      for (int corner = 0; corner < 3; ++corner) {
        float* row = row_of(corner, lanes[i]);
        store_quad(load_quad(row) + totals[corner][i], row);
      }
    }
  }

 private:
  typedef int32_t QuadInt __attribute__((vector_size(16)));
  static constexpr uint32_t ALL = (1u << LANES) - 1;

  uint32_t covered_, last_;  // bits of lanes: there is a face; the next lane shows another
  Mask is_empty_;
  int32_t faces_[LANES];
};

STUDIO_NAMESPACE_END
