// The small perceptron on CUDA: a product of matrices a layer, for some of the points at once, so that what one layer
// gives the next finds in the cache. Gradients on weights and biases are summed by atomics, so two runs may differ in
// the last bits.
#include "mlp/elements.h"
#include "studio/cuda.cuh"

STUDIO_NAMESPACE_BEGIN
namespace {

constexpr int64_t AT_ONCE = 1 << 16;  // points, a multiple of MlpColumns::FILLED

void check_sizes(const StudioMlp& in) {
  bool fits = in.layers >= 1 && in.layers <= STUDIO_MLP_LAYERS;
  for (int l = 0; fits && l <= in.layers; ++l) fits = in.widths[l] >= 1 && in.widths[l] <= STUDIO_MLP_WIDTH;
  if (!fits) throw std::runtime_error("a network has 1 to 8 layers, 1 to 256 wide");
}

// The columns of all layers for as many points as are taken at once.
class ColumnBuffer {
 public:
  explicit ColumnBuffer(const StudioMlp& in) : length_(length(in)), buffer_(in.launch, length_ * all_widths(in)) {}

  MlpColumns columns(const StudioMlp& in) const {
    MlpColumns columns;
    columns.length = length_;
    float* next = buffer_.data();
    for (int l = 0; l <= in.layers; next += in.widths[l++] * length_) columns.layer[l] = next;
    return columns;
  }

 private:
  static int64_t length(const StudioMlp& in) {
    const int64_t points = min_of(in.points, AT_ONCE);
    return (points + MlpColumns::FILLED - 1) / MlpColumns::FILLED * MlpColumns::FILLED;
  }
  static int64_t all_widths(const StudioMlp& in) {
    int64_t sum = 0;
    for (int l = 0; l <= in.layers; ++l) sum += in.widths[l];
    return sum;
  }

  int64_t length_;
  DeviceBuffer<float> buffer_;
};

// The weights as products read them: [inputs outputs] forward, [outputs inputs] backward, filled up to whole tiles.
class Factors {
 public:
  Factors(const StudioMlp& in, bool forward) : buffer_(in.launch, size(in, forward)) {
    float* next = buffer_.data();
    for (int l = 0; l < in.layers; ++l) {
      const int width = in.widths[l], out = in.widths[l + 1];
      const int terms = forward ? width : out, rows = forward ? out : width;
      const int filled = MlpProduct::filled(rows);
      const int64_t along = forward ? 1 : width, across = forward ? width : 1;
      launch(in.launch, int64_t(terms) * filled, MlpCopy{in.weights[l], along, across, next, filled, 1, rows, filled});
      layer[l] = next, next += int64_t(terms) * filled;
    }
  }

  const float* layer[STUDIO_MLP_LAYERS] = {};

 private:
  static int64_t size(const StudioMlp& in, bool forward) {
    int64_t sum = 0;
    for (int l = 0; l < in.layers; ++l) {
      const int terms = in.widths[forward ? l : l + 1], rows = in.widths[forward ? l + 1 : l];
      sum += int64_t(terms) * MlpProduct::filled(rows);
    }
    return sum;
  }

  DeviceBuffer<float> buffer_;
};

void to_columns(const StudioMlp& in, const float* rows, int width, int64_t points, float* columns, int64_t length) {
  launch(in.launch, width * length, MlpCopy{rows, 1, width, columns, length, 1, points, length});
}

void to_rows(const StudioMlp& in, const float* columns, int64_t length, float* rows, int width, int64_t points) {
  launch(in.launch, points * width, MlpCopy{columns, 1, length, rows, width, 1, width, width});
}

void run_layers(const StudioMlp& in, const Factors& factors, const MlpColumns& at, int64_t first, int64_t points,
                int layers) {
  to_columns(in, in.inputs + first * in.widths[0], in.widths[0], points, at.layer[0], at.length);
  for (int l = 0; l < layers; ++l) {
    const MlpProduct product = {factors.layer[l], at.layer[l], in.biases[l], nullptr, at.layer[l + 1], in.widths[l],
                                in.widths[l + 1], l + 1 < in.layers, in.softplus != 0, at.length};
    launch(in.launch, product.count(), product);
  }
}

void forward(const StudioMlp& in) {
  check_sizes(in);
  const int out = in.widths[in.layers];
  const Factors factors(in, true);
  const ColumnBuffer buffer(in);
  const MlpColumns at = buffer.columns(in);
  for (int64_t first = 0; first < in.points; first += AT_ONCE) {
    const int64_t points = min_of(AT_ONCE, in.points - first);
    run_layers(in, factors, at, first, points, in.layers);
    to_rows(in, at.layer[in.layers], at.length, in.outputs + first * out, out, points);
  }
}

void backward(const StudioMlp& in) {
  check_sizes(in);
  const bool to_weights = in.v_weights[0] != nullptr, to_inputs = in.v_inputs != nullptr;
  for (int l = 0; to_weights && l < in.layers; ++l) {
    set_to_zero(in.launch, in.v_weights[l], int64_t(in.widths[l]) * in.widths[l + 1]);
    set_to_zero(in.launch, in.v_biases[l], in.widths[l + 1]);
  }
  const int width = in.widths[0], out = in.widths[in.layers];
  const Factors forwards(in, true), backwards(in, false);
  const ColumnBuffer buffer(in), v_buffer(in);
  const MlpColumns at = buffer.columns(in), v = v_buffer.columns(in);
  for (int64_t first = 0; first < in.points; first += AT_ONCE) {
    const int64_t points = min_of(AT_ONCE, in.points - first);
    run_layers(in, forwards, at, first, points, in.layers - 1);
    to_columns(in, in.v_outputs + first * out, out, points, v.layer[in.layers], v.length);
    for (int l = in.layers - 1; l >= (to_inputs ? 0 : 1); --l) {
      const float* given = l > 0 ? at.layer[l] : nullptr;
      const MlpProduct product = {backwards.layer[l], v.layer[l + 1], nullptr, given, v.layer[l], in.widths[l + 1],
                                  in.widths[l], false, in.softplus != 0, v.length};
      launch(in.launch, product.count(), product);
    }
    if (to_inputs) to_rows(in, v.layer[0], v.length, in.v_inputs + first * width, width, points);
    if (!to_weights) continue;
    const MlpWeights weights{in, at, v};
    launch(in.launch, weights.count(), weights);
  }
}

}  // namespace
STUDIO_NAMESPACE_END

STUDIO_CUDA_ENTRY(studio_mlp, forward, StudioMlp)
STUDIO_CUDA_ENTRY(studio_mlp_backward, backward, StudioMlp)
