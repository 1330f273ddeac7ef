// Group normalisation, with a SiLU after it or without, as XLA FFI calls, float32.
//
// forward:  x [B,P,C], slope bias [S,C] -> y [B,P,C], mean root [B,G]
// backward: x, slope, bias, mean, root, dy [B,P,C] -> dx [B,P,C], dslope dbias [S,C]
//
// A group is C/G channels at all P positions of an example; S is 1 or B. One example
// after the other stays in the cache for all passes over it; threads take examples.

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
template <bool kSilu>
INLINE void Forward(const Sizes& n, float epsilon, const float* __restrict__ x,
                    const float* __restrict__ slope, const float* __restrict__ bias,
                    float* __restrict__ y, float* __restrict__ mean,
                    float* __restrict__ root, float* __restrict__ scratch) {
  const int64_t channels = n.channels;
  float* __restrict__ centre = scratch;
  float* __restrict__ steep = scratch + channels;
  std::fill(scratch, scratch + 2 * channels, 0.0f);
  for (int64_t p = 0; p < n.positions; ++p) {
    const float* __restrict__ row = x + p * channels;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) centre[c] += row[c];
  }
  OverGroups(n, n.count(), centre);
  for (int64_t p = 0; p < n.positions; ++p) {
    const float* __restrict__ row = x + p * channels;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
      const float d = row[c] - centre[c];
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
    const float* __restrict__ row = x + p * channels;
    float* __restrict__ out = y + p * channels;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
      const float z = (row[c] - centre[c]) * steep[c] + bias[c];
      out[c] = kSilu ? z * Sigmoid(z) : z;
    }
  }
}

// One example. Adds to dslope and dbias. `scratch` holds 6 C floats.
template <bool kSilu>
INLINE void Backward(const Sizes& n, const float* __restrict__ x,
                     const float* __restrict__ slope, const float* __restrict__ bias,
                     const float* __restrict__ mean, const float* __restrict__ root,
                     const float* __restrict__ dy, float* __restrict__ dx,
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
    const float* __restrict__ row = x + p * channels;
    const float* __restrict__ above = dy + p * channels;
    float* __restrict__ out = dx + p * channels;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
      const float u = (row[c] - centre[c]) * steep[c];
      float d = above[c];
      if (kSilu) {
        const float z = u * slope[c] + bias[c];
        const float s = Sigmoid(z);
        d *= s * (1.0f + z * (1.0f - s));
      }
      sum[c] += d;
      along[c] += d * u;
      out[c] = d;
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
    const float* __restrict__ row = x + p * channels;
    float* __restrict__ out = dx + p * channels;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
      const float u = (row[c] - centre[c]) * steep[c];
      out[c] = steep[c] * (slope[c] * out[c] - mean_sum[c] - u * mean_along[c]);
    }
  }
}

// Inlined into each clone, unlike by a pointer to it.
CLONES void RunForward(bool silu, const Sizes& n, float epsilon, const float* x,
                       const float* slope, const float* bias, float* y, float* mean,
                       float* root, float* scratch) {
  if (silu) {
    Forward<true>(n, epsilon, x, slope, bias, y, mean, root, scratch);
  } else {
    Forward<false>(n, epsilon, x, slope, bias, y, mean, root, scratch);
  }
}

CLONES void RunBackward(bool silu, const Sizes& n, const float* x, const float* slope,
                        const float* bias, const float* mean, const float* root,
                        const float* dy, float* dx, float* dslope, float* dbias,
                        float* scratch) {
  if (silu) {
    Backward<true>(n, x, slope, bias, mean, root, dy, dx, dslope, dbias, scratch);
  } else {
    Backward<false>(n, x, slope, bias, mean, root, dy, dx, dslope, dbias, scratch);
  }
}

ffi::Error Fits(const Floats& x, const Floats& slope, int64_t groups, Sizes* n) {
  const auto shape = x.dimensions();
  *n = {shape[0], shape[1], shape[2], groups, slope.dimensions()[0]};
  const bool sets = n->sets == 1 || n->sets == n->batch;
  if (groups < 1 || n->channels % groups || !sets ||
      slope.dimensions()[1] != n->channels) {
    return ffi::Error::InvalidArgument("a norm of arrays of other sizes");
  }
  return ffi::Error::Success();
}

ffi::Error CallForward(Floats x, Floats slope, Floats bias, Out y, Out mean, Out root,
                       int64_t groups, float epsilon, bool silu) {
  Sizes n;
  if (auto error = Fits(x, slope, groups, &n); error.failure()) return error;
#pragma omp parallel num_threads(n.threads())
  {
    std::vector<float> scratch(2 * n.channels);
#pragma omp for schedule(static)
    for (int64_t b = 0; b < n.batch; ++b) {
      RunForward(silu, n, epsilon, x.typed_data() + b * n.example(),
                 slope.typed_data() + n.set(b), bias.typed_data() + n.set(b),
                 y->typed_data() + b * n.example(), mean->typed_data() + b * groups,
                 root->typed_data() + b * groups, scratch.data());
    }
  }
  return ffi::Error::Success();
}

ffi::Error CallBackward(Floats x, Floats slope, Floats bias, Floats mean, Floats root,
                        Floats dy, Out dx, Out dslope, Out dbias, int64_t groups,
                        bool silu) {
  Sizes n;
  if (auto error = Fits(x, slope, groups, &n); error.failure()) return error;
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
      RunBackward(silu, n, x.typed_data() + b * n.example(),
                  slope.typed_data() + n.set(b), bias.typed_data() + n.set(b),
                  mean.typed_data() + b * groups, root.typed_data() + b * groups,
                  dy.typed_data() + b * n.example(), dx->typed_data() + b * n.example(),
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

XLA_FFI_DEFINE_HANDLER_SYMBOL(DlxNormForward, CallForward,
                              Results<3>(Arguments<3>())
                                  .Attr<int64_t>("groups")
                                  .Attr<float>("epsilon")
                                  .Attr<bool>("silu"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(DlxNormBackward, CallBackward,
                              Results<3>(Arguments<6>())
                                  .Attr<int64_t>("groups")
                                  .Attr<bool>("silu"));
