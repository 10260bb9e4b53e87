// The CPU rasterizer of OpenSplat (github.com/pierotofy/OpenSplat, AGPL-3) as torch operators; opensplat.py beside
// this file says how to build it. Nothing of OpenSplat is part of the studio.
#include <torch/library.h>

#include "bindings.h"

namespace {

using torch::Tensor;
using Pixels = std::vector<int32_t>*;  // for backward, an array that the caller deletes

std::tuple<Tensor, Tensor, int64_t> forward(int64_t width, int64_t height, Tensor means2d, Tensor conics, Tensor colors,
                                            Tensor opacities, Tensor background, Tensor covariances, Tensor depths) {
  auto [image, light, pixels] =
      rasterize_forward_tensor_cpu(static_cast<int>(width), static_cast<int>(height), means2d, conics, colors,
                                   opacities, background, covariances, depths);
  return {image, light, reinterpret_cast<int64_t>(pixels)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> backward(int64_t width, int64_t height, Tensor means2d, Tensor conics,
                                                    Tensor colors, Tensor opacities, Tensor background,
                                                    Tensor covariances, Tensor depths, Tensor light, int64_t pixels,
                                                    Tensor v_image, Tensor v_alpha) {
  const Pixels array = reinterpret_cast<Pixels>(pixels);
  auto gradients = rasterize_backward_tensor_cpu(static_cast<int>(height), static_cast<int>(width), means2d, conics,
                                                 colors, opacities, background, covariances, depths, light, array,
                                                 v_image, v_alpha);
  delete[] array;
  return gradients;
}

}  // namespace

TORCH_LIBRARY(opensplat, library) {
  library.def("forward", &forward);
  library.def("backward", &backward);
}
