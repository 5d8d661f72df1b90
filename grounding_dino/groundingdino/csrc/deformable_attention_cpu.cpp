// Deformable attention on a CPU: rows and weights are worked out for all samples of some bags at once, then the rows of
// each bag are summed in registers, while those that come soon are fetched into the cache.
#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "deformable_attention.h"

namespace grounding_dino {
namespace {

struct Bfloat16 {
  uint16_t bits;

  GDINO_INLINE operator float() const {
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float number;
    std::memcpy(&number, &wide, sizeof(number));
    return number;
  }
};

template <typename T>
GDINO_INLINE T narrow(Real<T> number) {
  return number;
}
template <>
GDINO_INLINE Bfloat16 narrow<Bfloat16>(float number) {  // to the nearest, ties to even
  uint32_t wide;
  std::memcpy(&wide, &number, sizeof(wide));
  const uint32_t rounded = (wide + 0x7fff + ((wide >> 16) & 1)) >> 16;
  return Bfloat16{static_cast<uint16_t>(number == number ? rounded : 0x7fc0)};
}

// Per sample of a bag, the same for all bags.
struct Levels {
  std::vector<int32_t> height, width, start;

  Levels(const int64_t* spatial_shapes, const GdinoSizes& sizes) {
    int64_t cells = 0;
    for (int64_t i = 0; i < 2 * sizes.levels; i += 2) {
      height.insert(height.end(), sizes.points, static_cast<int32_t>(spatial_shapes[i]));
      width.insert(width.end(), sizes.points, static_cast<int32_t>(spatial_shapes[i + 1]));
      start.insert(start.end(), sizes.points, static_cast<int32_t>(cells));
      cells += spatial_shapes[i] * spatial_shapes[i + 1];
    }
  }
};

template <typename T>
struct Call {
  GdinoSizes sizes;
  const Levels* levels;
  const T* value;
  const Real<T>* locations;
  const Real<T>* weights;

  GDINO_INLINE int64_t samples() const { return sizes.levels * sizes.points; }
  GDINO_INLINE int64_t bags() const { return sizes.batch * sizes.queries * sizes.heads; }
  GDINO_INLINE int64_t first_row(int64_t bag) const {  // of the bag's image and head
    const int64_t image = bag / (sizes.queries * sizes.heads);
    return image * sizes.cells * sizes.heads + bag % sizes.heads;
  }
};

template <typename T>
struct Gradients {
  const T* attended;
  Real<T>* value;
  Real<T>* locations;
  Real<T>* weights;
};

constexpr int kCorners = 4;
constexpr int kRowsAhead = 32;    // that are fetched into the cache; more would not stay in the few sets they map to
constexpr int64_t kBagsAhead = 16;  // whose rows and weights are worked out together

// Rows of the value, seen as (B * S * H, D), and weights of the four corners of a bag's samples, (4, K) each.
template <typename T>
GDINO_INLINE void find_corners(const Call<T>& call, int64_t bag, int32_t* rows, Real<T>* weights) {
  using R = Real<T>;
  const int64_t samples = call.samples();
  const R* location = call.locations + bag * samples * 2;
  const R* attention = call.weights + bag * samples;
  const int32_t* height = call.levels->height.data();
  const int32_t* width = call.levels->width.data();
  const int32_t* start = call.levels->start.data();
  const int32_t heads = static_cast<int32_t>(call.sizes.heads);
  const int32_t first = static_cast<int32_t>(call.first_row(bag));
#pragma omp simd
  for (int64_t k = 0; k < samples; ++k) {
    const Neighbours<R> x = neighbours<R>(location[2 * k], width[k]);
    const Neighbours<R> y = neighbours<R>(location[2 * k + 1], height[k]);
    const int32_t upper = first + (start[k] + y.low * width[k]) * heads;
    const int32_t lower = first + (start[k] + y.high * width[k]) * heads;
    const R upper_weight = attention[k] * y.low_weight;
    const R lower_weight = attention[k] * y.high_weight;
    rows[k] = upper + x.low * heads;
    rows[samples + k] = upper + x.high * heads;
    rows[2 * samples + k] = lower + x.low * heads;
    rows[3 * samples + k] = lower + x.high * heads;
    weights[k] = upper_weight * x.low_weight;
    weights[samples + k] = upper_weight * x.high_weight;
    weights[2 * samples + k] = lower_weight * x.low_weight;
    weights[3 * samples + k] = lower_weight * x.high_weight;
  }
}

GDINO_INLINE void fetch([[maybe_unused]] const void* address) {
#if defined(__GNUC__)
  __builtin_prefetch(address);
#endif
}

// Sum kWidth channels of `count` rows; the number of channels is fixed so that the sums stay in registers.
template <int kWidth, typename T>
GDINO_INLINE void sum_rows(
    const T* value, int64_t channels, const int32_t* rows, const Real<T>* weights, int64_t count, T* attended) {
  using R = Real<T>;
  R sums[kWidth] = {};
  for (int64_t i = 0; i < count; ++i) {
    for (int c = 0; c < kWidth; c += 64 / sizeof(T)) {
      fetch(value + rows[i + kRowsAhead] * channels + c);
    }
    const T* row = value + rows[i] * channels;
    const R weight = weights[i];
#pragma omp simd
    for (int c = 0; c < kWidth; ++c) {
      sums[c] += weight * static_cast<R>(row[c]);
    }
  }
#pragma omp simd
  for (int c = 0; c < kWidth; ++c) {
    attended[c] = narrow<T>(sums[c]);
  }
}

template <typename T>
GDINO_INLINE void attend(const Call<T>& call, T* attended, int64_t begin, int64_t end) {
  const int64_t count = kCorners * call.samples();
  const int64_t channels = call.sizes.channels;
  std::vector<int32_t> rows(kBagsAhead * count + kRowsAhead);
  std::vector<Real<T>> weights(kBagsAhead * count);
  for (int64_t first = begin; first < end; first += kBagsAhead) {
    const int64_t bags = std::min(kBagsAhead, end - first);
    for (int64_t i = 0; i < bags; ++i) {
      find_corners(call, first + i, rows.data() + i * count, weights.data() + i * count);
    }
    for (int64_t i = 0; i < bags; ++i) {
      const int32_t* bag_rows = rows.data() + i * count;
      const Real<T>* bag_weights = weights.data() + i * count;
      T* sums = attended + (first + i) * channels;
      int64_t c = 0;
      for (; c + 32 <= channels; c += 32) {
        sum_rows<32>(call.value + c, channels, bag_rows, bag_weights, count, sums + c);
      }
      for (; c + 8 <= channels; c += 8) {
        sum_rows<8>(call.value + c, channels, bag_rows, bag_weights, count, sums + c);
      }
      for (; c < channels; ++c) {
        sum_rows<1>(call.value + c, channels, bag_rows, bag_weights, count, sums + c);
      }
    }
  }
}

// All bags of one head of one image: no other head adds to the same rows of the value's gradient.
template <typename T>
GDINO_INLINE void attend_backward(const Call<T>& call, const Gradients<T>& gradients, int64_t image, int64_t head) {
  using R = Real<T>;
  const GdinoSizes& sizes = call.sizes;
  const int64_t samples = call.samples();
  const int64_t stride = sizes.heads * sizes.channels;
  for (int64_t query = 0; query < sizes.queries; ++query) {
    const int64_t bag = (image * sizes.queries + query) * sizes.heads + head;
    const T* base = call.value + call.first_row(bag) * sizes.channels;
    R* grad_base = gradients.value + call.first_row(bag) * sizes.channels;
    const T* grad = gradients.attended + bag * sizes.channels;
    for (int64_t k = 0; k < samples; ++k) {
      const int64_t sample = bag * samples + k;
      const int32_t height = call.levels->height[k], width = call.levels->width[k], start = call.levels->start[k];
      const Neighbours<R> x = neighbours<R>(call.locations[2 * sample], width);
      const Neighbours<R> y = neighbours<R>(call.locations[2 * sample + 1], height);
      const R attention = call.weights[sample];
      const int64_t cells[kCorners] = {
          start + y.low * width + x.low, start + y.low * width + x.high,
          start + y.high * width + x.low, start + y.high * width + x.high};
      const R weights[kCorners] = {
          y.low_weight * x.low_weight, y.low_weight * x.high_weight,
          y.high_weight * x.low_weight, y.high_weight * x.high_weight};
      R products[kCorners];
      for (int corner = 0; corner < kCorners; ++corner) {
        const T* row = base + cells[corner] * stride;
        R* grad_row = grad_base + cells[corner] * stride;
        const R weight = weights[corner] * attention;
        R product = 0;
#pragma omp simd reduction(+ : product)
        for (int64_t c = 0; c < sizes.channels; ++c) {
          const R slope = static_cast<R>(grad[c]);
          product += slope * static_cast<R>(row[c]);
          grad_row[c] += slope * weight;
        }
        products[corner] = product;
      }
      const R on_upper_x = x.low_slope * products[0] + x.high_slope * products[1];
      const R on_lower_x = x.low_slope * products[2] + x.high_slope * products[3];
      const R on_left_y = y.low_slope * products[0] + y.high_slope * products[2];
      const R on_right_y = y.low_slope * products[1] + y.high_slope * products[3];
      gradients.weights[sample] = weights[0] * products[0] + weights[1] * products[1] +
          weights[2] * products[2] + weights[3] * products[3];
      gradients.locations[2 * sample] =
          attention * static_cast<R>(width) * (y.low_weight * on_upper_x + y.high_weight * on_lower_x);
      gradients.locations[2 * sample + 1] =
          attention * static_cast<R>(height) * (x.low_weight * on_left_y + x.high_weight * on_right_y);
    }
  }
}

// The same code for one instruction set. It is not a template, because then compilers ignore the attribute.
#define GDINO_VARIANT(NAME, ATTRIBUTE, T)                                                                     \
  ATTRIBUTE void attend_##NAME(const Call<T>& call, T* attended, int64_t begin, int64_t end) {                \
    attend<T>(call, attended, begin, end);                                                                    \
  }                                                                                                           \
  ATTRIBUTE void attend_backward_##NAME(                                                                      \
      const Call<T>& call, const Gradients<T>& gradients, int64_t image, int64_t head) {                      \
    attend_backward<T>(call, gradients, image, head);                                                         \
  }

#if defined(__x86_64__) && defined(__GNUC__)
#define GDINO_VARIANTS(T)                                                                                     \
  GDINO_VARIANT(any, , T)                                                                                     \
  GDINO_VARIANT(avx2, __attribute__((target("avx2,fma"))), T)                                                 \
  GDINO_VARIANT(avx512, __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), T)

enum class Instructions { kAny, kAvx2, kAvx512 };

Instructions instructions() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return Instructions::kAvx512;
  }
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? Instructions::kAvx2 : Instructions::kAny;
}

#define GDINO_CALL(NAME, ...)                                                                                 \
  static const Instructions known = instructions();                                                           \
  switch (known) {                                                                                            \
    case Instructions::kAvx512:                                                                               \
      return NAME##_avx512(__VA_ARGS__);                                                                      \
    case Instructions::kAvx2:                                                                                 \
      return NAME##_avx2(__VA_ARGS__);                                                                        \
    default:                                                                                                  \
      return NAME##_any(__VA_ARGS__);                                                                         \
  }
#else
#define GDINO_VARIANTS(T) GDINO_VARIANT(any, , T)
#define GDINO_CALL(NAME, ...) return NAME##_any(__VA_ARGS__);
#endif

GDINO_VARIANTS(float)
GDINO_VARIANTS(double)
GDINO_VARIANTS(Bfloat16)

template <typename T>
void run(const Call<T>& call, T* attended, int64_t begin, int64_t end) {
  GDINO_CALL(attend, call, attended, begin, end)
}

template <typename T>
void run(const Call<T>& call, const Gradients<T>& gradients, int64_t image, int64_t head) {
  GDINO_CALL(attend_backward, call, gradients, image, head)
}

constexpr int64_t kBagsAtOnce = 256;  // that a thread takes: enough to be worth taking, few enough to share out evenly

template <typename T>
void run_forward(const Call<T>& call, int threads, T* attended) {
  const int64_t bags = call.bags();
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (bags > kBagsAtOnce)
  for (int64_t begin = 0; begin < bags; begin += kBagsAtOnce) {
    run(call, attended, begin, std::min(begin + kBagsAtOnce, bags));
  }
}

template <typename T>
void run_backward(const Call<T>& call, int threads, const Gradients<T>& gradients) {
  const int64_t maps = call.sizes.batch * call.sizes.heads;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t map = 0; map < maps; ++map) {
    run(call, gradients, map / call.sizes.heads, map % call.sizes.heads);
  }
}

// Call `use` with a null pointer of the element type's C++ type.
template <typename Use>
const char* with_type(int32_t type, const Use& use) {
  switch (type) {
    case kFloat32:
      use(static_cast<float*>(nullptr));
      return nullptr;
    case kFloat64:
      use(static_cast<double*>(nullptr));
      return nullptr;
    case kBfloat16:
      use(static_cast<Bfloat16*>(nullptr));
      return nullptr;
    default:
      return "the CPU kernel takes float32, float64 and bfloat16";
  }
}

template <typename T>
Call<T> call_for(
    const GdinoSizes& sizes, const Levels& levels, const void* value, const void* locations, const void* weights) {
  return {
      sizes, &levels, static_cast<const T*>(value), static_cast<const Real<T>*>(locations),
      static_cast<const Real<T>*>(weights)};
}

}  // namespace
}  // namespace grounding_dino

const char* gdino_forward(
    const GdinoSizes* sizes, const int64_t* spatial_shapes, int32_t type, int64_t execution,
    const void* value, const void* locations, const void* weights, void* attended) {
  using namespace grounding_dino;
  const Levels levels(spatial_shapes, *sizes);
  return with_type(type, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const Call<T> call = call_for<T>(*sizes, levels, value, locations, weights);
    run_forward(call, static_cast<int>(execution), static_cast<T*>(attended));
  });
}

const char* gdino_backward(
    const GdinoSizes* sizes, const int64_t* spatial_shapes, int32_t type, int64_t execution,
    const void* value, const void* locations, const void* weights, const void* grad_attended,
    void* grad_value, void* grad_locations, void* grad_weights) {
  using namespace grounding_dino;
  const Levels levels(spatial_shapes, *sizes);
  return with_type(type, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const Call<T> call = call_for<T>(*sizes, levels, value, locations, weights);
    const Gradients<T> gradients{
        static_cast<const T*>(grad_attended), static_cast<Real<T>*>(grad_value),
        static_cast<Real<T>*>(grad_locations), static_cast<Real<T>*>(grad_weights)};
    run_backward(call, static_cast<int>(execution), gradients);
  });
}
