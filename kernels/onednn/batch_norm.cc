// Batch normalisation, what is added to it and a leaky ReLU after it, as XLA FFI calls.
//
// forward:  x added [N,C], scale bias [C] -> y [N,C], mean var root [C]
// backward: x y dy [N,C], scale bias mean root dmean dvar [C]
//           -> dx dadded [N,C], dscale dbias [C]
//
// y = activation((x - mean) * root * scale + bias + added), root = 1 / sqrt(var + eps).
// Arrays of rows are float32 or bfloat16, all alike; arithmetic and what is of a channel
// are float32. Without `added` it, y of the backward and dadded are [0,C]. Each pass over memory does
// all that can be done in it: two of them each way. Threads take rows.

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
constexpr int64_t kBlock = 64;  // Rows summed in float32 before they go to a double.

struct Range {
  int64_t first, stop;
};

// What a column is multiplied by and so on, one array after the other.
struct Columns {
  const float *mean, *slope, *bias;
};

// Of a column: what the slopes of its inputs are sums of.
struct Share {
  const float *of_d, *of_x, *rest;
};

// An array of rows; null: none.
struct Rows {
  void* data;
  bool half;  // bfloat16, else float32.

  template <typename T>
  INLINE T* as() const {
    return static_cast<T*>(data);
  }
};

// sums: of x less the pivot, then of its squares, [2C], added to. The pivot is one row,
// so that a large mean costs no accuracy.
template <typename T>
INLINE void Moments(Range rows, int64_t channels, const T* __restrict__ x,
                    const T* __restrict__ pivot, double* __restrict__ sums,
                    float* __restrict__ scratch) {
  float* __restrict__ sum = scratch;
  float* __restrict__ square = scratch + channels;
  for (int64_t first = rows.first; first < rows.stop; first += kBlock) {
    const int64_t stop = std::min(first + kBlock, rows.stop);
    std::fill(scratch, scratch + 2 * channels, 0.0f);
    int64_t n = first;
    for (; n + 4 <= stop; n += 4) {
      const T* __restrict__ a = x + n * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const float o = Wide(pivot[c]);
        const float p = Wide(a[c]) - o, q = Wide(a[c + channels]) - o;
        const float r = Wide(a[c + 2 * channels]) - o;
        const float s = Wide(a[c + 3 * channels]) - o;
        sum[c] += (p + q) + (r + s);
        square[c] += (p * p + q * q) + (r * r + s * s);
      }
    }
    for (; n < stop; ++n) {
      const T* __restrict__ a = x + n * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const float p = Wide(a[c]) - Wide(pivot[c]);
        sum[c] += p;
        square[c] += p * p;
      }
    }
    for (int64_t c = 0; c < 2 * channels; ++c) sums[c] += scratch[c];
  }
}

CLONES void RunMoments(Rows x, Range rows, int64_t channels, double* sums,
                       float* scratch) {
  if (x.half) {
    Moments(rows, channels, x.as<Half>(), x.as<Half>(), sums, scratch);
  } else {
    Moments(rows, channels, x.as<float>(), x.as<float>(), sums, scratch);
  }
}

template <bool kAdded, typename T>
INLINE void Normalise(Range rows, int64_t channels, float leak, Columns of,
                      const T* __restrict__ x, const T* __restrict__ added,
                      T* __restrict__ y) {
  const float* __restrict__ mean = of.mean;
  const float* __restrict__ slope = of.slope;
  const float* __restrict__ bias = of.bias;
  for (int64_t n = rows.first; n < rows.stop; ++n) {
    const int64_t at = n * channels;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
      float z = (Wide(x[at + c]) - mean[c]) * slope[c] + bias[c];
      if (kAdded) z += Wide(added[at + c]);
      Put(z > 0.0f ? z : leak * z, y + at + c);
    }
  }
}

template <typename T>
INLINE void NormaliseAs(Range rows, int64_t channels, float leak, Columns of, Rows x,
                        Rows added, Rows y) {
  if (added.data) {
    Normalise<true>(rows, channels, leak, of, x.as<T>(), added.as<T>(), y.as<T>());
  } else {
    Normalise<false>(rows, channels, leak, of, x.as<T>(), added.as<T>(), y.as<T>());
  }
}

CLONES void RunNormalise(Range rows, int64_t channels, float leak, Columns of, Rows x,
                         Rows added, Rows y) {
  if (x.half) {
    NormaliseAs<Half>(rows, channels, leak, of, x, added, y);
  } else {
    NormaliseAs<float>(rows, channels, leak, of, x, added, y);
  }
}

// sums: of the slope of z, then of it times x - mean, [2C], added to.
template <bool kAdded, typename T>
INLINE void Slopes(Range rows, int64_t channels, float leak, Columns of,
                   const T* __restrict__ x, const T* __restrict__ y,
                   const T* __restrict__ dy, T* __restrict__ dadded,
                   double* __restrict__ sums, float* __restrict__ scratch) {
  const float* __restrict__ mean = of.mean;
  const float* __restrict__ slope = of.slope;
  const float* __restrict__ bias = of.bias;
  float* __restrict__ sum = scratch;
  float* __restrict__ along = scratch + channels;
  for (int64_t first = rows.first; first < rows.stop; first += kBlock) {
    const int64_t stop = std::min(first + kBlock, rows.stop);
    std::fill(scratch, scratch + 2 * channels, 0.0f);
    for (int64_t n = first; n < stop; ++n) {
      const int64_t at = n * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const float centred = Wide(x[at + c]) - mean[c], above = Wide(dy[at + c]);
        const float z = kAdded ? Wide(y[at + c]) : centred * slope[c] + bias[c];
        const float d = z > 0.0f ? above : leak * above;
        if (kAdded) Put(d, dadded + at + c);
        sum[c] += d;
        along[c] += d * centred;
      }
    }
    for (int64_t c = 0; c < 2 * channels; ++c) sums[c] += scratch[c];
  }
}

template <typename T>
INLINE void SlopesAs(Range rows, int64_t channels, float leak, Columns of, Rows x,
                     Rows y, Rows dy, Rows dadded, double* sums, float* scratch) {
  if (y.data) {
    Slopes<true>(rows, channels, leak, of, x.as<T>(), y.as<T>(), dy.as<T>(),
                 dadded.as<T>(), sums, scratch);
  } else {
    Slopes<false>(rows, channels, leak, of, x.as<T>(), y.as<T>(), dy.as<T>(),
                  dadded.as<T>(), sums, scratch);
  }
}

CLONES void RunSlopes(Range rows, int64_t channels, float leak, Columns of, Rows x,
                      Rows y, Rows dy, Rows dadded, double* sums, float* scratch) {
  if (x.half) {
    SlopesAs<Half>(rows, channels, leak, of, x, y, dy, dadded, sums, scratch);
  } else {
    SlopesAs<float>(rows, channels, leak, of, x, y, dy, dadded, sums, scratch);
  }
}

// dx = of_d * d + of_x * (x - mean) + rest; `d` is known where something was added.
template <bool kAdded, typename T>
INLINE void Inputs(Range rows, int64_t channels, float leak, Columns of,
                   const T* __restrict__ x, const T* __restrict__ dy,
                   const T* __restrict__ dadded, Share share, T* __restrict__ dx) {
  const float* __restrict__ mean = of.mean;
  const float* __restrict__ slope = of.slope;
  const float* __restrict__ bias = of.bias;
  const float* __restrict__ of_d = share.of_d;
  const float* __restrict__ of_x = share.of_x;
  const float* __restrict__ rest = share.rest;
  for (int64_t n = rows.first; n < rows.stop; ++n) {
    const int64_t at = n * channels;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
      const float centred = Wide(x[at + c]) - mean[c];
      float d;
      if (kAdded) {
        d = Wide(dadded[at + c]);
      } else {
        const float z = centred * slope[c] + bias[c];
        d = z > 0.0f ? Wide(dy[at + c]) : leak * Wide(dy[at + c]);
      }
      Put(d * of_d[c] + centred * of_x[c] + rest[c], dx + at + c);
    }
  }
}

template <typename T>
INLINE void InputsAs(Range rows, int64_t channels, float leak, Columns of, Rows x,
                     Rows dy, Rows dadded, Share share, Rows dx) {
  if (dadded.data) {
    Inputs<true>(rows, channels, leak, of, x.as<T>(), dy.as<T>(), dadded.as<T>(), share,
                 dx.as<T>());
  } else {
    Inputs<false>(rows, channels, leak, of, x.as<T>(), dy.as<T>(), dadded.as<T>(),
                  share, dx.as<T>());
  }
}

CLONES void RunInputs(Range rows, int64_t channels, float leak, Columns of, Rows x,
                      Rows dy, Rows dadded, Share share, Rows dx) {
  if (x.half) {
    InputsAs<Half>(rows, channels, leak, of, x, dy, dadded, share, dx);
  } else {
    InputsAs<float>(rows, channels, leak, of, x, dy, dadded, share, dx);
  }
}

struct Sizes {
  int64_t rows, channels;
  bool added;

  int threads() const {
    if (rows * channels < kWorthThreads) return 1;
    return static_cast<int>(std::min<int64_t>(omp_get_max_threads(), rows));
  }
  // Of thread t of `threads`, in whole blocks.
  Range part(int t, int threads) const {
    const int64_t blocks = (rows + kBlock - 1) / kBlock;
    const int64_t first = blocks * t / threads * kBlock;
    return {first, std::min(rows, blocks * (t + 1) / threads * kBlock)};
  }
};

Rows Of(const ffi::AnyBuffer& x) {
  return {x.untyped_data(), x.element_type() == ffi::BF16};
}

ffi::Error Fits(std::initializer_list<const ffi::AnyBuffer*> all,
                const ffi::AnyBuffer& added, const Floats& scale, Sizes* n) {
  const ffi::AnyBuffer& x = **all.begin();
  for (const ffi::AnyBuffer* rows : all) {
    const auto type = rows->element_type();
    if (type != x.element_type() || (type != ffi::F32 && type != ffi::BF16)) {
      return ffi::Error::InvalidArgument("a batch norm of arrays of other types");
    }
  }
  const auto shape = x.dimensions();
  *n = {shape[0], shape[1], added.dimensions()[0] > 0};
  const bool whole = !n->added || added.dimensions()[0] == n->rows;
  if (n->rows < 1 || !whole || scale.dimensions()[0] != n->channels ||
      added.dimensions()[1] != n->channels) {
    return ffi::Error::InvalidArgument("a batch norm of arrays of other sizes");
  }
  return ffi::Error::Success();
}

// Those of all threads into the first's.
void Together(int threads, int64_t size, double* sums) {
  for (int t = 1; t < threads; ++t) {
    for (int64_t i = 0; i < size; ++i) sums[i] += sums[t * size + i];
  }
}

ffi::Error CallForward(ffi::AnyBuffer x, ffi::AnyBuffer added, Floats scale,
                       Floats bias, AnyOut y, Out mean, Out var, Out root,
                       float epsilon, float leak) {
  Sizes n;
  if (auto error = Fits({&x, &added, &*y}, added, scale, &n); error.failure()) {
    return error;
  }
  const int threads = n.threads();
  const int64_t size = 2 * n.channels;
  std::vector<double> sums(threads * size, 0.0);
  std::vector<float> slope(n.channels);
  const Columns of = {mean->typed_data(), slope.data(), bias.typed_data()};
#pragma omp parallel num_threads(threads)
  {
    const int t = omp_get_thread_num();
    const Range rows = n.part(t, threads);
    std::vector<float> scratch(size);
    RunMoments(Of(x), rows, n.channels, sums.data() + t * size, scratch.data());
#pragma omp barrier
#pragma omp single
    {
      Together(threads, size, sums.data());
      for (int64_t c = 0; c < n.channels; ++c) {
        const double m = sums[c] / n.rows;
        const double v = std::max(sums[n.channels + c] / n.rows - m * m, 0.0);
        const Rows pivot = Of(x);
        const float of = pivot.half ? Wide(pivot.as<Half>()[c]) : pivot.as<float>()[c];
        mean->typed_data()[c] = static_cast<float>(of + m);
        var->typed_data()[c] = static_cast<float>(v);
        root->typed_data()[c] = static_cast<float>(1.0 / std::sqrt(v + epsilon));
        slope[c] = root->typed_data()[c] * scale.typed_data()[c];
      }
    }
    const Rows more = n.added ? Of(added) : Rows{nullptr, false};
    RunNormalise(rows, n.channels, leak, of, Of(x), more, Of(*y));
  }
  return ffi::Error::Success();
}

ffi::Error CallBackward(ffi::AnyBuffer x, ffi::AnyBuffer y, ffi::AnyBuffer dy,
                        Floats scale, Floats bias, Floats mean, Floats root,
                        Floats dmean, Floats dvar, AnyOut dx, AnyOut dadded, Out dscale,
                        Out dbias, float leak) {
  Sizes n;
  if (auto error = Fits({&x, &y, &dy, &*dx, &*dadded}, y, scale, &n); error.failure()) {
    return error;
  }
  const int threads = n.threads();
  const int64_t size = 2 * n.channels;
  std::vector<double> sums(threads * size, 0.0);
  std::vector<float> numbers(4 * n.channels);
  float* slope = numbers.data();
  float* of_d = slope + n.channels;
  float* of_x = of_d + n.channels;
  float* rest = of_x + n.channels;
  for (int64_t c = 0; c < n.channels; ++c) {
    slope[c] = root.typed_data()[c] * scale.typed_data()[c];
  }
  const Columns of = {mean.typed_data(), slope, bias.typed_data()};
  const Rows none = {nullptr, false};
  const Rows values = n.added ? Of(y) : none, passed = n.added ? Of(*dadded) : none;
#pragma omp parallel num_threads(threads)
  {
    const int t = omp_get_thread_num();
    const Range rows = n.part(t, threads);
    std::vector<float> scratch(size);
    RunSlopes(rows, n.channels, leak, of, Of(x), values, Of(dy), passed,
              sums.data() + t * size, scratch.data());
#pragma omp barrier
#pragma omp single
    {
      Together(threads, size, sums.data());
      for (int64_t c = 0; c < n.channels; ++c) {
        const double r = root.typed_data()[c], sum = sums[c];
        const double along = sums[n.channels + c], steep = slope[c];
        of_d[c] = slope[c];
        of_x[c] = static_cast<float>(
            (2.0 * dvar.typed_data()[c] - steep * r * r * along) / n.rows);
        rest[c] =
            static_cast<float>((dmean.typed_data()[c] - steep * sum) / n.rows);
        dscale->typed_data()[c] = static_cast<float>(along * r);
        dbias->typed_data()[c] = static_cast<float>(sum);
      }
    }
    RunInputs(rows, n.channels, leak, of, Of(x), Of(dy), passed, {of_d, of_x, rest},
              Of(*dx));
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    DlxBatchNormForward, CallForward,
    Results<3>(Results<1, ffi::AnyBuffer>(
                   Arguments<2>(Arguments<2, ffi::AnyBuffer>(ffi::Ffi::Bind()))))
        .Attr<float>("epsilon")
        .Attr<float>("leak"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    DlxBatchNormBackward, CallBackward,
    Results<2>(Results<2, ffi::AnyBuffer>(
                   Arguments<6>(Arguments<3, ffi::AnyBuffer>(ffi::Ffi::Bind()))))
        .Attr<float>("leak"));
