// The C entries of the perceptron on ordinary and on strange inputs: for the sanitizers, and for equal bits at any
// number of threads.
#include "check.h"
#include "mlp/mlp.h"

namespace {

struct Network {
  StudioMlp in{};
  std::vector<Floats> weights, biases;
  Floats inputs, v_outputs;

  Network(int64_t points, const std::vector<int>& widths, bool softplus) {
    in.points = points, in.layers = static_cast<int32_t>(widths.size()) - 1, in.softplus = softplus;
    for (size_t l = 0; l < widths.size(); ++l) in.widths[l] = widths[l];
    for (int l = 0; l < in.layers; ++l) {
      weights.push_back(random_floats(widths[l] * widths[l + 1], -0.5, 0.5, 2 * l + 1));
      biases.push_back(random_floats(widths[l + 1], -1, 1, 2 * l + 2));
    }
    inputs = random_floats(points * widths[0], -1, 1, 100);
    v_outputs = random_floats(points * widths.back(), -1, 1, 101);
  }

  // Outputs, then gradients on inputs, weights and biases: all, those on inputs, the others.
  Floats run(int threads) {
    in.launch.threads = threads;
    in.inputs = inputs.data(), in.v_outputs = v_outputs.data();
    for (int l = 0; l < in.layers; ++l) in.weights[l] = weights[l].data(), in.biases[l] = biases[l].data();
    Floats all(v_outputs.size(), 7);
    in.outputs = all.data(), ::run(studio_mlp(&in, sizeof in));
    for (int wanted : {1, 2, 3}) {
      Floats v_inputs(inputs.size(), 7);
      std::vector<Floats> v_weights = weights, v_biases = biases;
      in.v_inputs = wanted & 1 ? v_inputs.data() : nullptr;
      for (int l = 0; l < in.layers; ++l) {
        in.v_weights[l] = wanted & 2 ? v_weights[l].data() : nullptr;
        in.v_biases[l] = wanted & 2 ? v_biases[l].data() : nullptr;
      }
      ::run(studio_mlp_backward(&in, sizeof in));
      append(all, v_inputs);
      for (int l = 0; l < in.layers; ++l) append(all, v_weights[l]), append(all, v_biases[l]);
    }
    return all;
  }

  Floats check() {
    return check_threads([&](int threads) { return run(threads); });
  }
};

}  // namespace

int main() {
  for (bool softplus : {false, true}) {
    for (int64_t points : {0, 1, 95, 97, 5000}) Network(points, {32, 64, 64, 4}, softplus).check();
    Network(200, {1, 1}, softplus).check();
    Network(100, {3, 5, 17, 33, 2, 40, 7, 1, 9}, softplus).check();
    Network(50, {256, 256, 256}, softplus).check();
    Network strange(300, {5, 16, 3}, softplus);
    make_strange(strange.inputs, 7), make_strange(strange.weights[0], 9), make_strange(strange.biases[1], 2);
    strange.check();
  }
  const Network good(3, {4, 4, 4}, false);
  for (int layers : {-1, 0, 9, INT32_MAX}) {
    Network wrong = good;
    wrong.in.layers = layers;
    check_refused(studio_mlp(&wrong.in, sizeof wrong.in), "1 to 8 layers");
    check_refused(studio_mlp_backward(&wrong.in, sizeof wrong.in), "1 to 8 layers");
  }
  for (int width : {-1, 0, 257, INT32_MAX}) {
    Network wrong = good;
    wrong.in.widths[1] = width;
    check_refused(studio_mlp(&wrong.in, sizeof wrong.in), "1 to 256 wide");
  }
}
