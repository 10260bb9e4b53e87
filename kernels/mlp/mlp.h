// A small multi-layer perceptron over many points: the layers of a block of points follow each other while its numbers
// lie in the nearest cache. Layer l takes h to activation(weights[l] h + biases[l]), the last one without activation.
// Backward computes the layers again rather than have forward keep them.
#pragma once

#include "abi.h"

#define STUDIO_MLP_LAYERS 8
#define STUDIO_MLP_WIDTH 256

#ifdef __cplusplus
extern "C" {
#endif

typedef struct StudioMlp {
  StudioLaunch launch;
  int64_t points;
  int32_t layers;                        // 1 to 8
  int32_t softplus;                      // 0: the activation is ReLU
  int32_t widths[STUDIO_MLP_LAYERS + 1]; // 1 to 256; of the inputs, then of each layer's outputs
  const float* weights[STUDIO_MLP_LAYERS];  // [widths[l + 1] widths[l]]
  const float* biases[STUDIO_MLP_LAYERS];   // [widths[l + 1]]
  const float* inputs;                   // [n widths[0]]
  const float* v_outputs;                // [n widths[layers]]; of backward, as are those below the outputs
  float* outputs;                        // [n widths[layers]]
  float* v_inputs;                       // or null
  float* v_weights[STUDIO_MLP_LAYERS];   // all, or null in the first one
  float* v_biases[STUDIO_MLP_LAYERS];
} StudioMlp;

STUDIO_API int32_t studio_mlp(const StudioMlp* arguments, int64_t bytes);
STUDIO_API int32_t studio_mlp_backward(const StudioMlp* arguments, int64_t bytes);

#ifdef __cplusplus
}
#endif
