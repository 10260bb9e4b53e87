// Registers the rasterizer of OpenSplat (github.com/pierotofy/OpenSplat, AGPL-3) as torch operators, to be timed
// by opensplat.py, which says how to build this. Nothing of OpenSplat is part of the studio.
#include <torch/library.h>

#include "bindings.h"

namespace {

using torch::Tensor;

// OpenSplat returns an array of vectors that its caller deletes; here a number stands for it.
using Pixels = std::vector<int32_t>*;

std::vector<Tensor> project(Tensor means, Tensor scales, Tensor quats, Tensor view, double fx, double fy, double cx,
                            double cy, int64_t height, int64_t width) {
  const int count = static_cast<int>(means.size(0));
  Tensor perspective = torch::zeros({4, 4});
  perspective[0][0] = 2.0 * fx / double(width), perspective[1][1] = 2.0 * fy / double(height);
  perspective[2][2] = 1.0, perspective[2][3] = -0.01, perspective[3][2] = 1.0;
  Tensor projection = torch::matmul(perspective, view);
  auto [xys, radii, conics, cov2d, depths] = project_gaussians_forward_tensor_cpu(
      count, means, scales, 1.0f, quats, view, projection, static_cast<float>(fx), static_cast<float>(fy),
      static_cast<float>(cx), static_cast<float>(cy), static_cast<unsigned>(height), static_cast<unsigned>(width),
      0.01f);
  return {xys, radii, conics, cov2d, depths};
}

std::tuple<Tensor, Tensor, int64_t> forward(int64_t width, int64_t height, Tensor xys, Tensor conics, Tensor colors,
                                            Tensor opacities, Tensor background, Tensor cov2d, Tensor depths) {
  auto [image, transmittances, pixels] =
      rasterize_forward_tensor_cpu(static_cast<int>(width), static_cast<int>(height), xys, conics, colors, opacities,
                                   background, cov2d, depths);
  return {image, transmittances, reinterpret_cast<int64_t>(pixels)};
}

std::vector<Tensor> backward(int64_t width, int64_t height, Tensor xys, Tensor conics, Tensor colors, Tensor opacities,
                             Tensor background, Tensor cov2d, Tensor depths, Tensor transmittances, int64_t pixels,
                             Tensor v_image, Tensor v_alpha) {
  auto [v_xys, v_conics, v_colors, v_opacities] = rasterize_backward_tensor_cpu(
      static_cast<int>(height), static_cast<int>(width), xys, conics, colors, opacities, background, cov2d, depths,
      transmittances, reinterpret_cast<Pixels>(pixels), v_image, v_alpha);
  return {v_xys, v_conics, v_colors, v_opacities};
}

void release(int64_t pixels) { delete[] reinterpret_cast<Pixels>(pixels); }

}  // namespace

TORCH_LIBRARY(opensplat, library) {
  library.def("project", &project);
  library.def("forward", &forward);
  library.def("backward", &backward);
  library.def("release", &release);
}
