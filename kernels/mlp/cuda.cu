// The small perceptron on CUDA: a thread for each point, one launch forward. Gradients on weights and biases are summed
// by atomics, so two runs may differ in the last bits.
#include "mlp/elements.h"
#include "studio/cuda.cuh"

STUDIO_NAMESPACE_BEGIN
namespace {

constexpr int64_t AT_ONCE = 1 << 16;  // points of backward, whose layers are kept in memory

int widest_layer(const StudioMlp& in) {
  int widest = 0;
  bool fits = in.layers >= 1 && in.layers <= STUDIO_MLP_LAYERS;
  for (int l = 0; fits && l <= in.layers; ++l) {
    fits = in.widths[l] >= 1 && in.widths[l] <= STUDIO_MLP_WIDTH;
    widest = in.widths[l] > widest ? in.widths[l] : widest;
  }
  if (!fits) throw std::runtime_error("a network has 1 to 8 layers, 1 to 256 wide");
  return widest;
}

// call(Constant<WIDTH>()): narrow networks leave a thread's numbers in the nearest cache.
template <class Call>
void with_width(int widest, Call&& call) {
  widest <= 64 ? call(Constant<64>()) : call(Constant<STUDIO_MLP_WIDTH>());
}

void forward(const StudioMlp& in) {
  with_width(widest_layer(in), [&](auto width) {
    launch(in.launch, in.points, MlpForward<decltype(width)::value>{in});
  });
}

void backward(const StudioMlp& in) {
  const int widest = widest_layer(in);
  const MlpRows rows(in);
  const bool to_weights = in.v_weights[0] != nullptr;
  for (int l = 0; to_weights && l < in.layers; ++l) {
    set_to_zero(in.launch, in.v_weights[l], int64_t(in.widths[l]) * in.widths[l + 1]);
    set_to_zero(in.launch, in.v_biases[l], in.widths[l + 1]);
  }
  const int64_t kept = min_of(in.points, AT_ONCE) * rows.length;
  const DeviceBuffer<float> given(in.launch, kept), v_given(in.launch, kept);
  for (int64_t first = 0; first < in.points; first += AT_ONCE) {
    const int64_t points = min_of(AT_ONCE, in.points - first);
    with_width(widest, [&](auto width) {
      launch(in.launch, points, MlpBackward<decltype(width)::value>{in, rows, first, given.data(), v_given.data()});
    });
    if (!to_weights) continue;
    const MlpWeights weights{in, rows, first, points, given.data(), v_given.data()};
    launch(in.launch, weights.count(), weights);
  }
}

}  // namespace
STUDIO_NAMESPACE_END

STUDIO_CUDA_ENTRY(studio_mlp, forward, StudioMlp)
STUDIO_CUDA_ENTRY(studio_mlp_backward, backward, StudioMlp)
