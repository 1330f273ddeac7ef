// Batch normalisation, what is added to it and a leaky ReLU after it, as XLA FFI calls,
// float32.
//
// forward:  x added [N,C], scale bias [C] -> y [N,C], mean var root [C]
// backward: x y [N,C], scale bias mean root [C], dy [N,C], dmean dvar [C]
//           -> dx dadded [N,C], dscale dbias [C]
//
// y = activation((x - mean) * root * scale + bias + added), root = 1 / sqrt(var + eps).
// Without `added` it, y of the backward and dadded are [0,C]. Each pass over memory does
// all that can be done in it: two of them each way. Threads take rows.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <omp.h>

#include "xla/ffi/api/ffi.h"

#include "arithmetic.h"
#include "bindings.h"

namespace {

namespace ffi = xla::ffi;

using Out = ffi::Result<Floats>;

constexpr int64_t kWorthThreads = 1 << 14;  // Elements.
constexpr int64_t kBlock = 64;  // Rows summed in float32 before they go to a double.

struct Range {
  int64_t first, stop;
};

// What a column is multiplied by and so on, one array after the other.
struct Columns {
  const float *mean, *slope, *bias;
};

// sums: of x less the pivot, then of its squares, [2C], added to. The pivot is one row,
// so that a large mean costs no accuracy.
CLONES void Moments(Range rows, int64_t channels, const float* __restrict__ x,
                    const float* __restrict__ pivot, double* __restrict__ sums,
                    float* __restrict__ scratch) {
  float* __restrict__ sum = scratch;
  float* __restrict__ square = scratch + channels;
  for (int64_t first = rows.first; first < rows.stop; first += kBlock) {
    const int64_t stop = std::min(first + kBlock, rows.stop);
    std::fill(scratch, scratch + 2 * channels, 0.0f);
    int64_t n = first;
    for (; n + 4 <= stop; n += 4) {
      const float* __restrict__ a = x + n * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const float p = a[c] - pivot[c], q = a[c + channels] - pivot[c];
        const float r = a[c + 2 * channels] - pivot[c];
        const float s = a[c + 3 * channels] - pivot[c];
        sum[c] += (p + q) + (r + s);
        square[c] += (p * p + q * q) + (r * r + s * s);
      }
    }
    for (; n < stop; ++n) {
      const float* __restrict__ a = x + n * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const float p = a[c] - pivot[c];
        sum[c] += p;
        square[c] += p * p;
      }
    }
    for (int64_t c = 0; c < 2 * channels; ++c) sums[c] += scratch[c];
  }
}

template <bool kAdded>
INLINE void Normalise(Range rows, int64_t channels, float leak, Columns of,
                      const float* __restrict__ x, const float* __restrict__ added,
                      float* __restrict__ y) {
  const float* __restrict__ mean = of.mean;
  const float* __restrict__ slope = of.slope;
  const float* __restrict__ bias = of.bias;
  for (int64_t n = rows.first; n < rows.stop; ++n) {
    const int64_t at = n * channels;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
      float z = (x[at + c] - mean[c]) * slope[c] + bias[c];
      if (kAdded) z += added[at + c];
      y[at + c] = z > 0.0f ? z : leak * z;
    }
  }
}

CLONES void RunNormalise(Range rows, int64_t channels, float leak, Columns of,
                         const float* x, const float* added, float* y) {
  if (added) {
    Normalise<true>(rows, channels, leak, of, x, added, y);
  } else {
    Normalise<false>(rows, channels, leak, of, x, added, y);
  }
}

// sums: of the slope of z, then of it times x - mean, [2C], added to.
template <bool kAdded>
INLINE void Slopes(Range rows, int64_t channels, float leak, Columns of,
                   const float* __restrict__ x, const float* __restrict__ y,
                   const float* __restrict__ dy, float* __restrict__ dadded,
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
        const float centred = x[at + c] - mean[c];
        const float z = kAdded ? y[at + c] : centred * slope[c] + bias[c];
        const float d = z > 0.0f ? dy[at + c] : leak * dy[at + c];
        if (kAdded) dadded[at + c] = d;
        sum[c] += d;
        along[c] += d * centred;
      }
    }
    for (int64_t c = 0; c < 2 * channels; ++c) sums[c] += scratch[c];
  }
}

CLONES void RunSlopes(Range rows, int64_t channels, float leak, Columns of,
                      const float* x, const float* y, const float* dy, float* dadded,
                      double* sums, float* scratch) {
  if (y) {
    Slopes<true>(rows, channels, leak, of, x, y, dy, dadded, sums, scratch);
  } else {
    Slopes<false>(rows, channels, leak, of, x, y, dy, dadded, sums, scratch);
  }
}

// dx = of_d * d + of_x * (x - mean) + rest; `d` is known where something was added.
template <bool kAdded>
INLINE void Inputs(Range rows, int64_t channels, float leak, Columns of,
                   const float* __restrict__ x, const float* __restrict__ dy,
                   const float* __restrict__ dadded,
                   const float* __restrict__ of_d, const float* __restrict__ of_x,
                   const float* __restrict__ rest, float* __restrict__ dx) {
  const float* __restrict__ mean = of.mean;
  const float* __restrict__ slope = of.slope;
  const float* __restrict__ bias = of.bias;
  for (int64_t n = rows.first; n < rows.stop; ++n) {
    const int64_t at = n * channels;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
      const float centred = x[at + c] - mean[c];
      float d;
      if (kAdded) {
        d = dadded[at + c];
      } else {
        const float z = centred * slope[c] + bias[c];
        d = z > 0.0f ? dy[at + c] : leak * dy[at + c];
      }
      dx[at + c] = d * of_d[c] + centred * of_x[c] + rest[c];
    }
  }
}

CLONES void RunInputs(Range rows, int64_t channels, float leak, Columns of,
                      const float* x, const float* dy, const float* dadded,
                      const float* of_d, const float* of_x, const float* rest,
                      float* dx) {
  if (dadded) {
    Inputs<true>(rows, channels, leak, of, x, dy, dadded, of_d, of_x, rest, dx);
  } else {
    Inputs<false>(rows, channels, leak, of, x, dy, dadded, of_d, of_x, rest, dx);
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

ffi::Error Fits(const Floats& x, const Floats& added, const Floats& scale, Sizes* n) {
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

ffi::Error CallForward(Floats x, Floats added, Floats scale, Floats bias, Out y,
                       Out mean, Out var, Out root, float epsilon, float leak) {
  Sizes n;
  if (auto error = Fits(x, added, scale, &n); error.failure()) return error;
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
    Moments(rows, n.channels, x.typed_data(), x.typed_data(), sums.data() + t * size,
            scratch.data());
#pragma omp barrier
#pragma omp single
    {
      Together(threads, size, sums.data());
      for (int64_t c = 0; c < n.channels; ++c) {
        const double m = sums[c] / n.rows;
        const double v = std::max(sums[n.channels + c] / n.rows - m * m, 0.0);
        mean->typed_data()[c] = static_cast<float>(x.typed_data()[c] + m);
        var->typed_data()[c] = static_cast<float>(v);
        root->typed_data()[c] = static_cast<float>(1.0 / std::sqrt(v + epsilon));
        slope[c] = root->typed_data()[c] * scale.typed_data()[c];
      }
    }
    RunNormalise(rows, n.channels, leak, of, x.typed_data(),
                 n.added ? added.typed_data() : nullptr, y->typed_data());
  }
  return ffi::Error::Success();
}

ffi::Error CallBackward(Floats x, Floats y, Floats scale, Floats bias, Floats mean,
                        Floats root, Floats dy, Floats dmean, Floats dvar, Out dx,
                        Out dadded, Out dscale, Out dbias, float leak) {
  Sizes n;
  if (auto error = Fits(x, y, scale, &n); error.failure()) return error;
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
  const float* values = n.added ? y.typed_data() : nullptr;
  float* passed = n.added ? dadded->typed_data() : nullptr;
#pragma omp parallel num_threads(threads)
  {
    const int t = omp_get_thread_num();
    const Range rows = n.part(t, threads);
    std::vector<float> scratch(size);
    RunSlopes(rows, n.channels, leak, of, x.typed_data(), values, dy.typed_data(),
              passed, sums.data() + t * size, scratch.data());
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
    RunInputs(rows, n.channels, leak, of, x.typed_data(), dy.typed_data(), passed, of_d,
              of_x, rest, dx->typed_data());
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(DlxBatchNormForward, CallForward,
                              Results<4>(Arguments<4>())
                                  .Attr<float>("epsilon")
                                  .Attr<float>("leak"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(DlxBatchNormBackward, CallBackward,
                              Results<4>(Arguments<9>()).Attr<float>("leak"));
