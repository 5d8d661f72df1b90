// Deformable attention on an NVIDIA GPU, compute capability 7.5 and up; the CUDA compiler and runtime are all it needs.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <type_traits>

#include "deformable_attention.h"

namespace grounding_dino {
namespace {

constexpr int kMaxLevels = 16;
constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int64_t kMaxThreads = int64_t(0x7fffffff) * kThreads;  // of one launch
constexpr int kBytesAtOnce = 16;  // the widest load of one thread

struct Levels {  // handed over by value, so that it lies in constant memory
  int32_t height[kMaxLevels], width[kMaxLevels], start[kMaxLevels];
};

Levels levels_from(const int64_t* spatial_shapes, const GdinoSizes& sizes) {
  Levels levels{};
  int64_t cells = 0;
  for (int64_t i = 0; i < sizes.levels; ++i) {
    levels.height[i] = static_cast<int32_t>(spatial_shapes[2 * i]);
    levels.width[i] = static_cast<int32_t>(spatial_shapes[2 * i + 1]);
    levels.start[i] = static_cast<int32_t>(cells);
    cells += spatial_shapes[2 * i] * spatial_shapes[2 * i + 1];
  }
  return levels;
}

// By name, since a build may switch the implicit conversions of the half types off.
__device__ __forceinline__ float widen(float number) { return number; }
__device__ __forceinline__ double widen(double number) { return number; }
__device__ __forceinline__ float widen(__half number) { return __half2float(number); }
__device__ __forceinline__ float widen(__nv_bfloat16 number) { return __bfloat162float(number); }

template <typename T>
__device__ __forceinline__ T narrow(Real<T> number) {
  return number;
}
template <>
__device__ __forceinline__ __half narrow<__half>(float number) {
  return __float2half_rn(number);
}
template <>
__device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float number) {
  return __float2bfloat16_rn(number);
}

__device__ __forceinline__ int64_t first_row(const GdinoSizes& sizes, int64_t bag) {  // of the bag's image and head
  const int64_t image = bag / (sizes.queries * sizes.heads);
  return (image * sizes.cells * sizes.heads + bag % sizes.heads) * sizes.channels;
}

template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack {
  T channels[kWidth];
};

template <typename T, int kWidth>
__device__ __forceinline__ void add_row(const T* row, Real<T> weight, Real<T>* sums) {
  const Pack<T, kWidth> pack = *reinterpret_cast<const Pack<T, kWidth>*>(row);
#pragma unroll
  for (int c = 0; c < kWidth; ++c) {
    sums[c] += weight * widen(pack.channels[c]);
  }
}

// One thread per kWidth channels of a bag; the threads of a bag are neighbours and read whole rows together.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads) attend(
    const GdinoSizes sizes,
    const Levels levels,
    const T* __restrict__ value,
    const Real<T>* __restrict__ locations,
    const Real<T>* __restrict__ weights,
    T* __restrict__ attended) {
  using R = Real<T>;
  const int64_t threads_per_bag = sizes.channels / kWidth;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t bag = thread / threads_per_bag;
  if (bag >= sizes.batch * sizes.queries * sizes.heads) {
    return;
  }
  const int64_t channel = thread % threads_per_bag * kWidth;
  const T* base = value + first_row(sizes, bag) + channel;
  const int64_t stride = sizes.heads * sizes.channels;
  int64_t sample = bag * sizes.levels * sizes.points;
  R sums[kWidth] = {};
  for (int level = 0; level < sizes.levels; ++level) {
    const int32_t height = levels.height[level], width = levels.width[level];
    const T* map = base + levels.start[level] * stride;
    for (int point = 0; point < sizes.points; ++point, ++sample) {
      const Neighbours<R> x = neighbours<R>(locations[2 * sample], width);
      const Neighbours<R> y = neighbours<R>(locations[2 * sample + 1], height);
      const R upper_weight = weights[sample] * y.low_weight;
      const R lower_weight = weights[sample] * y.high_weight;
      const T* upper = map + static_cast<int64_t>(y.low) * width * stride;
      const T* lower = map + static_cast<int64_t>(y.high) * width * stride;
      add_row<T, kWidth>(upper + x.low * stride, upper_weight * x.low_weight, sums);
      add_row<T, kWidth>(upper + x.high * stride, upper_weight * x.high_weight, sums);
      add_row<T, kWidth>(lower + x.low * stride, lower_weight * x.low_weight, sums);
      add_row<T, kWidth>(lower + x.high * stride, lower_weight * x.high_weight, sums);
    }
  }
  Pack<T, kWidth> pack;
#pragma unroll
  for (int c = 0; c < kWidth; ++c) {
    pack.channels[c] = narrow<T>(sums[c]);
  }
  *reinterpret_cast<Pack<T, kWidth>*>(attended + bag * sizes.channels + channel) = pack;
}

template <typename R>
__device__ __forceinline__ R sum_over_warp(R partial) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    partial += __shfl_down_sync(0xffffffffu, partial, distance);
  }
  return partial;  // in lane 0
}

// One warp per bag, its lanes side by side in the channels. The value's gradient is added up in Real<T>.
template <typename T>
__global__ void __launch_bounds__(kThreads) attend_backward(
    const GdinoSizes sizes,
    const Levels levels,
    const T* __restrict__ grad_attended,
    const T* __restrict__ value,
    const Real<T>* __restrict__ locations,
    const Real<T>* __restrict__ weights,
    Real<T>* __restrict__ grad_value,
    Real<T>* __restrict__ grad_locations,
    Real<T>* __restrict__ grad_weights) {
  using R = Real<T>;
  const int64_t bag = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kWarp;
  if (bag >= sizes.batch * sizes.queries * sizes.heads) {
    return;  // the whole warp does
  }
  const int lane = threadIdx.x % kWarp;
  const int64_t base = first_row(sizes, bag);
  const int64_t stride = sizes.heads * sizes.channels;
  const T* grad = grad_attended + bag * sizes.channels;
  int64_t sample = bag * sizes.levels * sizes.points;
  for (int level = 0; level < sizes.levels; ++level) {
    const int32_t height = levels.height[level], width = levels.width[level];
    for (int point = 0; point < sizes.points; ++point, ++sample) {
      const Neighbours<R> x = neighbours<R>(locations[2 * sample], width);
      const Neighbours<R> y = neighbours<R>(locations[2 * sample + 1], height);
      const R attention = weights[sample];
      const int64_t upper = base + (levels.start[level] + static_cast<int64_t>(y.low) * width) * stride;
      const int64_t lower = base + (levels.start[level] + static_cast<int64_t>(y.high) * width) * stride;
      const int64_t rows[4] = {
          upper + x.low * stride, upper + x.high * stride, lower + x.low * stride, lower + x.high * stride};
      const R corner_weights[4] = {
          y.low_weight * x.low_weight, y.low_weight * x.high_weight,
          y.high_weight * x.low_weight, y.high_weight * x.high_weight};
      R products[4] = {};
      for (int64_t c = lane; c < sizes.channels; c += kWarp) {
        const R slope = widen(grad[c]);
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          products[corner] += slope * widen(value[rows[corner] + c]);
          const R weight = corner_weights[corner] * attention;
          if (weight != 0) {
            atomicAdd(grad_value + rows[corner] + c, slope * weight);
          }
        }
      }
      const R grad_weight = sum_over_warp(
          corner_weights[0] * products[0] + corner_weights[1] * products[1] +
          corner_weights[2] * products[2] + corner_weights[3] * products[3]);
      const R grad_x = sum_over_warp(
          y.low_weight * (x.low_slope * products[0] + x.high_slope * products[1]) +
          y.high_weight * (x.low_slope * products[2] + x.high_slope * products[3]));
      const R grad_y = sum_over_warp(
          x.low_weight * (y.low_slope * products[0] + y.high_slope * products[2]) +
          x.high_weight * (y.low_slope * products[1] + y.high_slope * products[3]));
      if (lane == 0) {
        grad_weights[sample] = grad_weight;
        grad_locations[2 * sample] = attention * static_cast<R>(width) * grad_x;
        grad_locations[2 * sample + 1] = attention * static_cast<R>(height) * grad_y;
      }
    }
  }
}

template <typename T, int kWidth>
void launch(
    const GdinoSizes& sizes, const Levels& levels, cudaStream_t stream,
    const void* value, const void* locations, const void* weights, void* attended) {
  const int64_t threads = sizes.batch * sizes.queries * sizes.heads * (sizes.channels / kWidth);
  const auto blocks = static_cast<unsigned int>((threads + kThreads - 1) / kThreads);
  attend<T, kWidth><<<blocks, kThreads, 0, stream>>>(
      sizes, levels, static_cast<const T*>(value), static_cast<const Real<T>*>(locations),
      static_cast<const Real<T>*>(weights), static_cast<T*>(attended));
}

bool is_aligned(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % kBytesAtOnce == 0;
}

// Call `use` with a null pointer of the element type's C++ type, then say what went wrong in the launch.
template <typename Use>
const char* with_type(const GdinoSizes& sizes, int32_t type, const Use& use) {
  if (sizes.levels > kMaxLevels) {
    return "the CUDA kernel takes up to 16 levels";
  }
  const int64_t bags = sizes.batch * sizes.queries * sizes.heads;
  if (bags > kMaxThreads / kWarp || bags > kMaxThreads / (sizes.channels + 1)) {
    return "too many queries for one launch";
  }
  if (bags == 0 || sizes.channels == 0 || sizes.levels * sizes.points == 0) {
    return nullptr;
  }
  switch (type) {
    case kFloat32:
      use(static_cast<float*>(nullptr));
      break;
    case kFloat64:
      use(static_cast<double*>(nullptr));
      break;
    case kBfloat16:
      use(static_cast<__nv_bfloat16*>(nullptr));
      break;
    case kFloat16:
      use(static_cast<__half*>(nullptr));
      break;
    default:
      return "the CUDA kernel takes float32, float64, bfloat16 and float16";
  }
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace
}  // namespace grounding_dino

const char* gdino_forward(
    const GdinoSizes* sizes, const int64_t* spatial_shapes, int32_t type, int64_t execution,
    const void* value, const void* locations, const void* weights, void* attended) {
  using namespace grounding_dino;
  return with_type(*sizes, type, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    constexpr int kWidth = kBytesAtOnce / sizeof(T);
    const bool is_wide = sizes->channels % kWidth == 0 && is_aligned(value) && is_aligned(attended);
    const auto launcher = is_wide ? launch<T, kWidth> : launch<T, 1>;
    launcher(
        *sizes, levels_from(spatial_shapes, *sizes), reinterpret_cast<cudaStream_t>(execution), value, locations,
        weights, attended);
  });
}

const char* gdino_backward(
    const GdinoSizes* sizes, const int64_t* spatial_shapes, int32_t type, int64_t execution,
    const void* value, const void* locations, const void* weights, const void* grad_attended,
    void* grad_value, void* grad_locations, void* grad_weights) {
  using namespace grounding_dino;
  return with_type(*sizes, type, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const int64_t threads = sizes->batch * sizes->queries * sizes->heads * kWarp;
    const auto blocks = static_cast<unsigned int>((threads + kThreads - 1) / kThreads);
    attend_backward<T><<<blocks, kThreads, 0, reinterpret_cast<cudaStream_t>(execution)>>>(
        *sizes, levels_from(spatial_shapes, *sizes), static_cast<const T*>(grad_attended),
        static_cast<const T*>(value), static_cast<const Real<T>*>(locations), static_cast<const Real<T>*>(weights),
        static_cast<Real<T>*>(grad_value), static_cast<Real<T>*>(grad_locations),
        static_cast<Real<T>*>(grad_weights));
  });
}
