// What the CPU and the CUDA kernel of deformable attention share: their interface and where a sample lies in its level.
//
// ops/functional.py says what is computed. B images, Q queries, H heads of D channels, L levels, P points, S cells of all
// levels together, K = L * P samples; a bag is all that one head reads for one query.
//
// The interface is plain C and no header of PyTorch is read, so that a kernel compiles in seconds and one build serves
// every version of PyTorch. Python hands over addresses of contiguous memory and has checked what they stand for.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define GDINO_INLINE __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define GDINO_INLINE inline __attribute__((always_inline))
#else
#define GDINO_INLINE inline
#endif

#if defined(_WIN32)
#define GDINO_EXPORT extern "C" __declspec(dllexport)
#else
#define GDINO_EXPORT extern "C" __attribute__((visibility("default")))
#endif

// Element types of the value, the output and its gradient. Locations, weights and the other gradients, that of the value
// included, are float64 with a float64 value and float32 with any other.
enum GdinoType : int32_t { kFloat32 = 0, kFloat64 = 1, kBfloat16 = 2, kFloat16 = 3 };

struct GdinoSizes {
  int64_t batch, cells, heads, channels, queries, levels, points;
};

// `execution` is the number of threads on a CPU and the stream on a GPU. `spatial_shapes` holds height and width of each
// level. Both functions return nullptr, or what went wrong.
//
// value (B, S, H, D), locations (B, Q, H, L, P, 2), weights (B, Q, H, L, P) -> attended (B, Q, H, D).
GDINO_EXPORT const char* gdino_forward(
    const GdinoSizes* sizes, const int64_t* spatial_shapes, int32_t type, int64_t execution,
    const void* value, const void* locations, const void* weights, void* attended);

// The gradient of the output -> those of the inputs. `grad_value` holds zeros when it comes.
GDINO_EXPORT const char* gdino_backward(
    const GdinoSizes* sizes, const int64_t* spatial_shapes, int32_t type, int64_t execution,
    const void* value, const void* locations, const void* weights, const void* grad_attended,
    void* grad_value, void* grad_locations, void* grad_weights);

namespace grounding_dino {

template <typename T>
struct Wide {
  using type = float;
};
template <>
struct Wide<double> {
  using type = double;
};
template <typename T>
using Real = typename Wide<T>::type;  // what is computed in

// The two neighbouring cells of a sample along one axis. Both are always inside of the level, so they may be read; one
// that stands for a cell outside has weight 0 and slope 0. A slope is how the weight grows with the sample's position in
// cells; it is that to the right where the sample lies on a cell's centre.
template <typename R>
struct Neighbours {
  int32_t low, high;
  R low_weight, high_weight;
  R low_slope, high_slope;
};

// Limits instead of conditions: that way compilers vectorise it.
template <typename R>
GDINO_INLINE R smaller(R a, R b) {
  return b < a ? b : a;
}
template <typename R>
GDINO_INLINE R larger(R a, R b) {
  return a < b ? b : a;
}

template <typename R>
GDINO_INLINE Neighbours<R> neighbours(R location, int32_t size) {
  const R edge = static_cast<R>(size);
  const R position = location * edge - R(0.5);
  const R kept = smaller(larger(R(-1), position), edge);  // where all weights are 0; so it is for what is not a number
  const R low = smaller(std::floor(kept), edge - R(1));
  const R fraction = kept - low;
  const int32_t cell = static_cast<int32_t>(low);
  Neighbours<R> found;
  found.low = larger(cell, 0);
  found.high = smaller(cell + 1, size - 1);
  found.low_weight = smaller(R(1) - fraction, low + R(1));           // 0 if low is -1
  found.high_weight = smaller(fraction, edge - R(1) - low);          // 0 if low is the last cell
  const bool reads = position > R(-1) && position < edge;
  found.low_slope = reads && low >= R(0) ? R(-1) : R(0);
  found.high_slope = reads && low < edge - R(1) ? R(1) : R(0);
  return found;
}

}  // namespace grounding_dino
