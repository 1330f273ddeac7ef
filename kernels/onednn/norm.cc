// Group normalisation, with a SiLU after it or without, as XLA FFI calls.
//
// forward:  x [B,P,C], slope bias [S,C] -> y [B,P,C], mean root [B,G]
// backward: x, dy [B,P,C], slope, bias, mean, root -> dx [B,P,C], dslope dbias [S,C]
//
// x, y and their slopes are float32 or bfloat16, all alike; the rest, and arithmetic,
// float32. A group is C/G channels at all P positions of an example; S is 1 or B. One example
// after the other stays in the cache for all passes over it; threads take examples.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include <omp.h>

#include "xla/ffi/api/ffi.h"

#include "arithmetic.h"
#include "bindings.h"

namespace {

namespace ffi = xla::ffi;

using Out = ffi::Result<Floats>;
using AnyOut = ffi::Result<ffi::AnyBuffer>;

constexpr int64_t kWorthThreads = 1 << 14;  // Elements.

struct Sizes {
  int64_t batch, positions, channels, groups, sets;

  int64_t width() const { return channels / groups; }
  int64_t example() const { return positions * channels; }
  float count() const { return static_cast<float>(positions * width()); }
  // Of slope and bias: of an example, or of all.
  int64_t set(int64_t b) const { return sets == 1 ? 0 : b * channels; }
  int threads() const {
    if (batch * example() < kWorthThreads) return 1;
    return static_cast<int>(std::min<int64_t>(omp_get_max_threads(), batch));
  }
};

// Each group's sum of `of_channel` over `divisor`, into every one of its channels.
INLINE void OverGroups(const Sizes& n, float divisor, float* of_channel) {
  for (int64_t g = 0; g < n.groups; ++g) {
    float* of_group = of_channel + g * n.width();
    double sum = 0;
    for (int64_t j = 0; j < n.width(); ++j) sum += of_group[j];
    std::fill(of_group, of_group + n.width(), static_cast<float>(sum / divisor));
  }
}

// One example. `scratch` holds 2 C floats.
template <bool kSilu, typename T>
INLINE void Forward(const Sizes& n, float epsilon, const T* __restrict__ x,
                    const float* __restrict__ slope, const float* __restrict__ bias,
                    T* __restrict__ y, float* __restrict__ mean,
                    float* __restrict__ root, float* __restrict__ scratch) {
  const int64_t channels = n.channels;
  float* __restrict__ centre = scratch;
  float* __restrict__ steep = scratch + channels;
  std::fill(scratch, scratch + 2 * channels, 0.0f);
  for (int64_t p = 0; p < n.positions; ++p) {
    const T* __restrict__ row = x + p * channels;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) centre[c] += Wide(row[c]);
  }
  OverGroups(n, n.count(), centre);
  for (int64_t p = 0; p < n.positions; ++p) {
    const T* __restrict__ row = x + p * channels;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
      const float d = Wide(row[c]) - centre[c];
      steep[c] += d * d;
    }
  }
  OverGroups(n, n.count(), steep);
  for (int64_t g = 0; g < n.groups; ++g) {
    mean[g] = centre[g * n.width()];
    root[g] = 1.0f / std::sqrt(steep[g * n.width()] + epsilon);
  }
  for (int64_t c = 0; c < channels; ++c) steep[c] = root[c / n.width()] * slope[c];
  for (int64_t p = 0; p < n.positions; ++p) {
    const T* __restrict__ row = x + p * channels;
    T* __restrict__ out = y + p * channels;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
      const float z = (Wide(row[c]) - centre[c]) * steep[c] + bias[c];
      Put(kSilu ? z * Sigmoid(z) : z, out + c);
    }
  }
}

// One example. Adds to dslope and dbias. `scratch` holds 6 C floats.
template <bool kSilu, typename T>
INLINE void Backward(const Sizes& n, const T* __restrict__ x,
                     const float* __restrict__ slope, const float* __restrict__ bias,
                     const float* __restrict__ mean, const float* __restrict__ root,
                     const T* __restrict__ dy, T* __restrict__ dx,
                     float* __restrict__ dslope, float* __restrict__ dbias,
                     float* __restrict__ scratch) {
  const int64_t channels = n.channels;
  float* __restrict__ centre = scratch;
  float* __restrict__ steep = scratch + channels;
  float* __restrict__ sum = scratch + 2 * channels;
  float* __restrict__ along = scratch + 3 * channels;
  float* __restrict__ mean_sum = scratch + 4 * channels;
  float* __restrict__ mean_along = scratch + 5 * channels;
  std::fill(scratch, scratch + 6 * channels, 0.0f);
  for (int64_t c = 0; c < channels; ++c) {
    centre[c] = mean[c / n.width()];
    steep[c] = root[c / n.width()];
  }
  for (int64_t p = 0; p < n.positions; ++p) {
    const T* __restrict__ row = x + p * channels;
    const T* __restrict__ above = dy + p * channels;
    T* __restrict__ out = dx + p * channels;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
      const float u = (Wide(row[c]) - centre[c]) * steep[c];
      float d = Wide(above[c]);
      if (kSilu) {
        const float z = u * slope[c] + bias[c];
        const float s = Sigmoid(z);
        d *= s * (1.0f + z * (1.0f - s));
      }
      sum[c] += d;
      along[c] += d * u;
      Put(d, out + c);
    }
  }
  for (int64_t c = 0; c < channels; ++c) {
    dbias[c] += sum[c];
    dslope[c] += along[c];
    mean_sum[c] = slope[c] * sum[c];
    mean_along[c] = slope[c] * along[c];
  }
  OverGroups(n, n.count(), mean_sum);
  OverGroups(n, n.count(), mean_along);
  for (int64_t p = 0; p < n.positions; ++p) {
    const T* __restrict__ row = x + p * channels;
    T* __restrict__ out = dx + p * channels;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
      const float u = (Wide(row[c]) - centre[c]) * steep[c];
      const float d = slope[c] * Wide(out[c]) - mean_sum[c] - u * mean_along[c];
      Put(steep[c] * d, out + c);
    }
  }
}

// Examples as they lie: bfloat16, else float32.
struct Data {
  void* data;
  bool half;

  // Example `b` of those of `size` numbers.
  template <typename T>
  INLINE T* at(int64_t b, int64_t size) const {
    return static_cast<T*>(data) + b * size;
  }
};

template <typename T>
INLINE void ForwardAs(bool silu, const Sizes& n, float epsilon, int64_t b, Data x,
                      const float* slope, const float* bias, Data y, float* mean,
                      float* root, float* scratch) {
  const T* from = x.at<T>(b, n.example());
  T* to = y.at<T>(b, n.example());
  if (silu) {
    Forward<true>(n, epsilon, from, slope, bias, to, mean, root, scratch);
  } else {
    Forward<false>(n, epsilon, from, slope, bias, to, mean, root, scratch);
  }
}

template <typename T>
INLINE void BackwardAs(bool silu, const Sizes& n, int64_t b, Data x, const float* slope,
                       const float* bias, const float* mean, const float* root, Data dy,
                       Data dx, float* dslope, float* dbias, float* scratch) {
  const T* from = x.at<T>(b, n.example());
  const T* above = dy.at<T>(b, n.example());
  T* to = dx.at<T>(b, n.example());
  if (silu) {
    Backward<true>(n, from, slope, bias, mean, root, above, to, dslope, dbias, scratch);
  } else {
    Backward<false>(n, from, slope, bias, mean, root, above, to, dslope, dbias, scratch);
  }
}

// Example b. Inlined into each clone, unlike by a pointer to it.
CLONES void RunForward(bool silu, const Sizes& n, float epsilon, int64_t b, Data x,
                       const float* slope, const float* bias, Data y, float* mean,
                       float* root, float* scratch) {
  if (x.half) {
    ForwardAs<Half>(silu, n, epsilon, b, x, slope, bias, y, mean, root, scratch);
  } else {
    ForwardAs<float>(silu, n, epsilon, b, x, slope, bias, y, mean, root, scratch);
  }
}

CLONES void RunBackward(bool silu, const Sizes& n, int64_t b, Data x,
                        const float* slope, const float* bias, const float* mean,
                        const float* root, Data dy, Data dx, float* dslope,
                        float* dbias, float* scratch) {
  if (x.half) {
    BackwardAs<Half>(silu, n, b, x, slope, bias, mean, root, dy, dx, dslope, dbias,
                     scratch);
  } else {
    BackwardAs<float>(silu, n, b, x, slope, bias, mean, root, dy, dx, dslope, dbias,
                      scratch);
  }
}

Data Of(const ffi::AnyBuffer& x) {
  return {x.untyped_data(), x.element_type() == ffi::BF16};
}

ffi::Error Fits(std::initializer_list<const ffi::AnyBuffer*> all, const Floats& slope,
                int64_t groups, Sizes* n) {
  const ffi::AnyBuffer& x = **all.begin();
  for (const ffi::AnyBuffer* other : all) {
    const auto type = other->element_type();
    if (type != x.element_type() || (type != ffi::F32 && type != ffi::BF16)) {
      return ffi::Error::InvalidArgument("a norm of arrays of other types");
    }
  }
  const auto shape = x.dimensions();
  *n = {shape[0], shape[1], shape[2], groups, slope.dimensions()[0]};
  const bool sets = n->sets == 1 || n->sets == n->batch;
  if (groups < 1 || n->channels % groups || !sets ||
      slope.dimensions()[1] != n->channels) {
    return ffi::Error::InvalidArgument("a norm of arrays of other sizes");
  }
  return ffi::Error::Success();
}

ffi::Error CallForward(ffi::AnyBuffer x, Floats slope, Floats bias, AnyOut y, Out mean,
                       Out root, int64_t groups, float epsilon, bool silu) {
  Sizes n;
  if (auto error = Fits({&x, &*y}, slope, groups, &n); error.failure()) return error;
#pragma omp parallel num_threads(n.threads())
  {
    std::vector<float> scratch(2 * n.channels);
#pragma omp for schedule(static)
    for (int64_t b = 0; b < n.batch; ++b) {
      RunForward(silu, n, epsilon, b, Of(x), slope.typed_data() + n.set(b),
                 bias.typed_data() + n.set(b), Of(*y), mean->typed_data() + b * groups,
                 root->typed_data() + b * groups, scratch.data());
    }
  }
  return ffi::Error::Success();
}

ffi::Error CallBackward(ffi::AnyBuffer x, ffi::AnyBuffer dy, Floats slope, Floats bias,
                        Floats mean, Floats root, AnyOut dx, Out dslope, Out dbias,
                        int64_t groups, bool silu) {
  Sizes n;
  if (auto error = Fits({&x, &dy, &*dx}, slope, groups, &n); error.failure()) {
    return error;
  }
  const int threads = n.threads();
  const int64_t size = n.sets * n.channels;
  std::fill(dslope->typed_data(), dslope->typed_data() + size, 0.0f);
  std::fill(dbias->typed_data(), dbias->typed_data() + size, 0.0f);
  // Sums over examples: of each thread, added in their order.
  std::vector<float> sums(n.sets == 1 ? threads * 2 * n.channels : 0, 0.0f);
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> scratch(6 * n.channels);
    float* own = sums.data() + omp_get_thread_num() * 2 * n.channels;
#pragma omp for schedule(static)
    for (int64_t b = 0; b < n.batch; ++b) {
      RunBackward(silu, n, b, Of(x), slope.typed_data() + n.set(b),
                  bias.typed_data() + n.set(b), mean.typed_data() + b * groups,
                  root.typed_data() + b * groups, Of(dy), Of(*dx),
                  n.sets == 1 ? own : dslope->typed_data() + n.set(b),
                  n.sets == 1 ? own + n.channels : dbias->typed_data() + n.set(b),
                  scratch.data());
    }
  }
  if (n.sets == 1) {
    for (int t = 0; t < threads; ++t) {
      const float* own = sums.data() + t * 2 * n.channels;
      for (int64_t c = 0; c < n.channels; ++c) {
        dslope->typed_data()[c] += own[c];
        dbias->typed_data()[c] += own[n.channels + c];
      }
    }
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    DlxNormForward, CallForward,
    Results<2>(Results<1, ffi::AnyBuffer>(
                   Arguments<2>(Arguments<1, ffi::AnyBuffer>(ffi::Ffi::Bind()))))
        .Attr<int64_t>("groups")
        .Attr<float>("epsilon")
        .Attr<bool>("silu"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    DlxNormBackward, CallBackward,
    Results<2>(Results<1, ffi::AnyBuffer>(
                   Arguments<4>(Arguments<2, ffi::AnyBuffer>(ffi::Ffi::Bind()))))
        .Attr<int64_t>("groups")
        .Attr<bool>("silu"));
