// Attention and its derivative as XLA FFI calls, float32; the products are oneDNN's.
//
// forward:  q [B,L,H,K], k v [B,M,H,K] -> o [B,L,H,K], lse [B,H,L]
// backward: q, k, v, o, lse, do [B,L,H,K] -> dq [B,L,H,K], dk dv [B,M,H,K]
//
// lse is the logarithm of the sum of the exponentials of a query's scores. A thread takes
// one head of one example after the other. Its queries come in blocks of about 64, whose
// scores stay in the cache; heads are read and written where they lie, by strides. Keys
// that no query of a block may see are not touched.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <vector>

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

#include "xla/ffi/api/ffi.h"

#include "arithmetic.h"

namespace {

namespace ffi = xla::ffi;

using Floats = ffi::Buffer<ffi::F32>;
using Out = ffi::Result<Floats>;

constexpr int64_t kRows = 64;           // Of a block, about.
constexpr int64_t kWorthThreads = 1 << 16;  // Products of numbers.

struct Sizes {
  int64_t batch, queries, heads, width, keys;
  bool causal;
  float scale;

  int64_t stride() const { return heads * width; }
  int64_t rows() const {
    const int64_t blocks = std::max<int64_t>(1, (queries + kRows / 2) / kRows);
    return (queries + blocks - 1) / blocks;
  }
  int64_t blocks() const { return (queries + rows() - 1) / rows(); }
  // Keys that query `l` sees: those before it and its own.
  int64_t seen(int64_t l) const { return causal ? std::min(keys, l + 1) : keys; }
  int64_t query_head(int64_t i) const {
    return (i / heads * queries * heads + i % heads) * width;
  }
  int64_t key_head(int64_t i) const {
    return (i / heads * keys * heads + i % heads) * width;
  }
  int threads() const {
    const int64_t pairs = batch * heads;
    if (pairs * queries * keys * width < kWorthThreads) return 1;
    return static_cast<int>(std::min<int64_t>(omp_get_max_threads(), pairs));
  }
};

// C [m,n] = alpha A B + beta C, rows of `lda`, `ldb`, `ldc` numbers.
struct Gemm {
  std::atomic<bool>& failed;

  void operator()(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha,
                  const float* a, int64_t lda, const float* b, int64_t ldb, float beta,
                  float* c, int64_t ldc) const {
    if (dnnl_sgemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc) !=
        dnnl_success) {
      failed = true;
    }
  }
};

// Scores of one query -> exponentials of their distance to the largest; 0 from `seen`
// on. Returns their sum.
CLONES float Exponentials(int64_t seen, int64_t keys, float* __restrict__ scores,
                          float* largest) {
  float most = scores[0];
#pragma omp simd reduction(max : most)
  for (int64_t j = 0; j < seen; ++j) most = scores[j] > most ? scores[j] : most;
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < seen; ++j) {
    const float e = Exp(scores[j] - most);
    scores[j] = e;
    sum += e;
  }
  std::fill(scores + seen, scores + keys, 0.0f);
  *largest = most;
  return sum;
}

CLONES void Times(int64_t n, float by, float* __restrict__ x) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) x[j] *= by;
}

// One query: scores -> weights p, and slopes of p -> those of the scores.
CLONES void RowBackward(int64_t seen, int64_t keys, int64_t width, float lse,
                        const float* __restrict__ o, const float* __restrict__ dout,
                        float* __restrict__ p, float* __restrict__ slopes) {
  float along = 0;
#pragma omp simd reduction(+ : along)
  for (int64_t j = 0; j < width; ++j) along += o[j] * dout[j];
#pragma omp simd
  for (int64_t j = 0; j < seen; ++j) {
    const float weight = Exp(p[j] - lse);
    p[j] = weight;
    slopes[j] = weight * (slopes[j] - along);
  }
  std::fill(p + seen, p + keys, 0.0f);
  std::fill(slopes + seen, slopes + keys, 0.0f);
}

ffi::Error Fits(const Floats& q, const Floats& k, bool causal, float scale, Sizes* n) {
  const auto a = q.dimensions(), b = k.dimensions();
  *n = {a[0], a[1], a[2], a[3], b[1], causal, scale};
  if (b[0] != a[0] || b[2] != a[2] || b[3] != a[3] || b[1] < 1) {
    return ffi::Error::InvalidArgument("attention of arrays of other sizes");
  }
  return ffi::Error::Success();
}

ffi::Error Ended(const std::atomic<bool>& failed) {
  return failed ? ffi::Error::Internal("oneDNN refused a product")
                : ffi::Error::Success();
}

ffi::Error CallForward(Floats q, Floats k, Floats v, Out o, Out lse, bool causal,
                       float scale) {
  Sizes n;
  if (auto error = Fits(q, k, causal, scale, &n); error.failure()) return error;
  std::atomic<bool> failed = false;
  const Gemm gemm{failed};
  const int64_t stride = n.stride(), rows = n.rows();
#pragma omp parallel num_threads(n.threads())
  {
    std::vector<float> scores(rows * n.keys);
    std::vector<float> sums(rows);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < n.batch * n.heads; ++i) {
      const float* keys = k.typed_data() + n.key_head(i);
      const float* values = v.typed_data() + n.key_head(i);
      for (int64_t first = 0; first < n.queries; first += rows) {
        const int64_t count = std::min(rows, n.queries - first);
        const int64_t seen = n.seen(first + count - 1);
        const int64_t at = n.query_head(i) + first * stride;
        float* out = o->typed_data() + at;
        gemm('N', 'T', count, seen, n.width, n.scale, q.typed_data() + at, stride, keys,
             stride, 0.0f, scores.data(), seen);
        for (int64_t r = 0; r < count; ++r) {
          float largest;
          sums[r] = Exponentials(n.seen(first + r), seen, scores.data() + r * seen,
                                 &largest);
          lse->typed_data()[i * n.queries + first + r] = largest + std::log(sums[r]);
        }
        gemm('N', 'N', count, n.width, seen, 1.0f, scores.data(), seen, values, stride,
             0.0f, out, stride);
        for (int64_t r = 0; r < count; ++r) {
          Times(n.width, 1.0f / sums[r], out + r * stride);
        }
      }
    }
  }
  return Ended(failed);
}

ffi::Error CallBackward(Floats q, Floats k, Floats v, Floats o, Floats lse, Floats dout,
                        Out dq, Out dk, Out dv, bool causal, float scale) {
  Sizes n;
  if (auto error = Fits(q, k, causal, scale, &n); error.failure()) return error;
  std::atomic<bool> failed = false;
  const Gemm gemm{failed};
  const int64_t stride = n.stride(), rows = n.rows(), width = n.width;
#pragma omp parallel num_threads(n.threads())
  {
    std::vector<float> weights(rows * n.keys), slopes(rows * n.keys);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < n.batch * n.heads; ++i) {
      const float* keys = k.typed_data() + n.key_head(i);
      const float* values = v.typed_data() + n.key_head(i);
      float* key_slopes = dk->typed_data() + n.key_head(i);
      float* value_slopes = dv->typed_data() + n.key_head(i);
      for (int64_t m = n.queries ? n.seen(n.queries - 1) : 0; m < n.keys; ++m) {
        std::fill(key_slopes + m * stride, key_slopes + m * stride + width, 0.0f);
        std::fill(value_slopes + m * stride, value_slopes + m * stride + width, 0.0f);
      }
      // The last block sees the most keys: it writes, the others add.
      for (int64_t block = n.blocks() - 1; block >= 0; --block) {
        const int64_t first = block * rows;
        const int64_t count = std::min(rows, n.queries - first);
        const int64_t seen = n.seen(first + count - 1);
        const int64_t at = n.query_head(i) + first * stride;
        const float* queries = q.typed_data() + at;
        const float* slope = dout.typed_data() + at;
        const float add = block == n.blocks() - 1 ? 0.0f : 1.0f;
        float* p = weights.data();
        float* ds = slopes.data();
        gemm('N', 'T', count, seen, width, n.scale, queries, stride, keys, stride, 0.0f,
             p, seen);
        gemm('N', 'T', count, seen, width, 1.0f, slope, stride, values, stride, 0.0f, ds,
             seen);
        for (int64_t r = 0; r < count; ++r) {
          RowBackward(n.seen(first + r), seen, width,
                      lse.typed_data()[i * n.queries + first + r],
                      o.typed_data() + at + r * stride, slope + r * stride, p + r * seen,
                      ds + r * seen);
        }
        gemm('T', 'N', seen, width, count, 1.0f, p, seen, slope, stride, add,
             value_slopes, stride);
        gemm('T', 'N', seen, width, count, n.scale, ds, seen, queries, stride, add,
             key_slopes, stride);
        gemm('N', 'N', count, width, seen, n.scale, ds, seen, keys, stride, 0.0f,
             dq->typed_data() + at, stride);
      }
    }
  }
  return Ended(failed);
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(DlxOneDnnAttentionForward, CallForward,
                              ffi::Ffi::Bind()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Attr<bool>("causal")
                                  .Attr<float>("scale"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(DlxOneDnnAttentionBackward, CallBackward,
                              ffi::Ffi::Bind()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Attr<bool>("causal")
                                  .Attr<float>("scale"));
