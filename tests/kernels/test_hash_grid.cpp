// The C entries of the hash grid on ordinary and on strange points: for the sanitizers, and for equal bits at any
// number of threads.
#include "check.h"
#include "hash_grid/hash_grid.h"

namespace {

struct Encoding {
  StudioHashGrid in{};
  Floats positions, directions, table, v_features;

  Encoding(int64_t points, int features, const std::vector<StudioHashLevel>& levels) {
    in.points = points, in.features = features, in.levels = static_cast<int32_t>(levels.size());
    for (size_t l = 0; l < levels.size(); ++l) {
      const int64_t side = int64_t(levels[l].resolution) + 1;
      in.level[l] = levels[l], in.level[l].first = in.entries;
      in.entries += levels[l].mask == 0 ? side * side * side : int64_t(levels[l].mask) + 1;
    }
    positions = random_floats(3 * points, -0.1, 1.1, 1), directions = random_floats(3 * points, -1, 1, 2);
    table = random_floats(in.entries * features, -1, 1, 3);
    v_features = random_floats(points * in.levels * features, -1, 1, 4);
  }

  // Features, gradients on the table and on the positions, then all of them along the directions.
  Floats run(int threads) {
    in.launch.threads = threads;
    in.positions = positions.data(), in.table = table.data(), in.v_features = v_features.data();
    Floats all;
    for (const float* along : {static_cast<const float*>(nullptr), static_cast<const float*>(directions.data())}) {
      in.directions = along;
      Floats features(v_features.size(), 7), v_table(table.size(), 7), v_positions(positions.size(), 7);
      in.result = features.data(), ::run(studio_hash_grid_encode(&in, sizeof in));
      in.result = v_table.data(), ::run(studio_hash_grid_scatter(&in, sizeof in));
      in.result = v_positions.data(), ::run(studio_hash_grid_slopes(&in, sizeof in));
      append(all, features), append(all, v_table), append(all, v_positions);
    }
    return all;
  }

  Floats check() {
    return check_threads([&](int threads) { return run(threads); });
  }
};

constexpr StudioHashLevel dense(uint32_t resolution) { return {0, resolution, 0}; }
constexpr StudioHashLevel hashed(uint32_t resolution, uint32_t mask) { return {0, resolution, mask}; }

void strange_points_give_finite_gradients() {
  Encoding strange(333, 2, {dense(4), hashed(9, 127), hashed(1 << 20, 255)});
  make_strange(strange.positions, 4);
  const Floats all = strange.check();
  const size_t features = strange.v_features.size();
  for (size_t i = 0; i < all.size(); ++i) {
    const int64_t point = static_cast<int64_t>(i) / 6;
    bool is_number = true;
    for (int axis = 0; i < features && axis < 3; ++axis) is_number &= !std::isnan(strange.positions[3 * point + axis]);
    CHECK(is_number ? std::isfinite(all[i]) : std::isnan(all[i]));
  }
}

void impossible_grids_are_refused() {
  const auto refused = [](Encoding wrong, const char* words) {
    wrong.in.positions = wrong.positions.data(), wrong.in.table = wrong.table.data();
    Floats result(wrong.v_features.size());
    wrong.in.result = result.data();
    check_refused(studio_hash_grid_encode(&wrong.in, sizeof wrong.in), words);
  };
  const Encoding good(5, 2, {dense(4), hashed(9, 127)});
  for (int features : {0, 3, 16}) {
    Encoding wrong = good;
    wrong.in.features = features, refused(wrong, "1, 2, 4 or 8 features");
  }
  for (int levels : {-1, 0, 33}) {
    Encoding wrong = good;
    wrong.in.levels = levels, refused(wrong, "1 to 32 levels");
  }
  for (uint32_t resolution : {0u, 5u, 2000u, 1u << 20, (1u << 20) + 1, 0xffffffffu}) {  // dense, and without the room
    Encoding wrong = good;
    wrong.in.level[0].resolution = resolution, refused(wrong, "room in the table");
  }
  Encoding wrong = good;
  wrong.in.level[1].mask = 255, refused(wrong, "room in the table");
  wrong = good;
  wrong.in.level[0].first = -1, refused(wrong, "room in the table");
}

}  // namespace

int main() {
  for (int features : {1, 2, 4, 8}) {
    for (int64_t points : {0, 1, 17, 5000}) Encoding(points, features, {dense(5), hashed(40, 511)}).check();
  }
  Encoding(300, 2, {dense(1)}).check();  // more threads than layers of corners
  Encoding(300, 4, {dense(12)}).check();
  Encoding(300, 1, {hashed(50, 1)}).check();
  Encoding(100, 2, std::vector<StudioHashLevel>(32, hashed(30, 63))).check();
  strange_points_give_finite_gradients();
  impossible_grids_are_refused();
}
