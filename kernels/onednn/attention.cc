// Attention and its derivative as XLA FFI calls, float32; the products are oneDNN's.
//
// forward:  q [B,L,H,K], k v [B,M,H,K] -> o [B,L,H,K], lse [B,H,L]
// backward: q, k, v, o, lse, do [B,L,H,K] -> dq [B,L,H,K], dk dv [B,M,H,K]
//
// The same of packed arrays, for L = M: qkv [B,L,3,H,K] -> o, lse and
// qkv, o, lse, do -> dqkv [B,L,3,H,K].
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
#include "bindings.h"

namespace {

namespace ffi = xla::ffi;

using Out = ffi::Result<Floats>;

constexpr int64_t kRows = 64;           // Of a block, about.
constexpr int64_t kWorthThreads = 1 << 16;  // Products of numbers.

struct Sizes {
  int64_t batch, queries, heads, width, keys;
  bool causal;
  float scale;
  int64_t parts;  // Of a row of q, k or v: 3 in a packed array, else 1.

  int64_t stride() const { return heads * width; }
  int64_t packed() const { return parts * stride(); }
  int64_t rows() const {
    const int64_t blocks = std::max<int64_t>(1, (queries + kRows / 2) / kRows);
    return (queries + blocks - 1) / blocks;
  }
  int64_t blocks() const { return (queries + rows() - 1) / rows(); }
  // Keys that query `l` sees: those before it and its own.
  int64_t seen(int64_t l) const { return causal ? std::min(keys, l + 1) : keys; }
  // Where head `i` of all examples begins: in q, in k and v, in o.
  int64_t query_head(int64_t i) const { return Head(i, queries * parts); }
  int64_t key_head(int64_t i) const { return Head(i, keys * parts); }
  int64_t out_head(int64_t i) const { return Head(i, queries); }
  int64_t Head(int64_t i, int64_t rows) const {
    return (i / heads * rows * heads + i % heads) * width;
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
  *n = {a[0], a[1], a[2], a[3], b[1], causal, scale, 1};
  if (b[0] != a[0] || b[2] != a[2] || b[3] != a[3] || b[1] < 1) {
    return ffi::Error::InvalidArgument("attention of arrays of other sizes");
  }
  return ffi::Error::Success();
}

Sizes Packed(const Floats& qkv, bool causal, float scale) {
  const auto a = qkv.dimensions();
  return {a[0], a[1], a[3], a[4], a[1], causal, scale, 3};
}

ffi::Error Ended(const std::atomic<bool>& failed) {
  return failed ? ffi::Error::Internal("oneDNN refused a product")
                : ffi::Error::Success();
}

ffi::Error Forward(const Sizes& n, const float* q, const float* k, const float* v,
                   float* o, float* lse) {
  std::atomic<bool> failed = false;
  const Gemm gemm{failed};
  const int64_t stride = n.stride(), packed = n.packed(), rows = n.rows();
#pragma omp parallel num_threads(n.threads())
  {
    std::vector<float> scores(rows * n.keys);
    std::vector<float> sums(rows);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < n.batch * n.heads; ++i) {
      const float* keys = k + n.key_head(i);
      const float* values = v + n.key_head(i);
      for (int64_t first = 0; first < n.queries; first += rows) {
        const int64_t count = std::min(rows, n.queries - first);
        const int64_t seen = n.seen(first + count - 1);
        float* out = o + n.out_head(i) + first * stride;
        gemm('N', 'T', count, seen, n.width, n.scale,
             q + n.query_head(i) + first * packed, packed, keys, packed, 0.0f,
             scores.data(), seen);
        for (int64_t r = 0; r < count; ++r) {
          float largest;
          sums[r] = Exponentials(n.seen(first + r), seen, scores.data() + r * seen,
                                 &largest);
          lse[i * n.queries + first + r] = largest + std::log(sums[r]);
        }
        gemm('N', 'N', count, n.width, seen, 1.0f, scores.data(), seen, values, packed,
             0.0f, out, stride);
        for (int64_t r = 0; r < count; ++r) {
          Times(n.width, 1.0f / sums[r], out + r * stride);
        }
      }
    }
  }
  return Ended(failed);
}

ffi::Error Backward(const Sizes& n, const float* q, const float* k, const float* v,
                    const float* o, const float* lse, const float* dout, float* dq,
                    float* dk, float* dv) {
  std::atomic<bool> failed = false;
  const Gemm gemm{failed};
  const int64_t stride = n.stride(), packed = n.packed(), rows = n.rows();
  const int64_t width = n.width;
#pragma omp parallel num_threads(n.threads())
  {
    std::vector<float> weights(rows * n.keys), slopes(rows * n.keys);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < n.batch * n.heads; ++i) {
      const float* keys = k + n.key_head(i);
      const float* values = v + n.key_head(i);
      float* key_slopes = dk + n.key_head(i);
      float* value_slopes = dv + n.key_head(i);
      for (int64_t m = n.queries ? n.seen(n.queries - 1) : 0; m < n.keys; ++m) {
        std::fill(key_slopes + m * packed, key_slopes + m * packed + width, 0.0f);
        std::fill(value_slopes + m * packed, value_slopes + m * packed + width, 0.0f);
      }
      // The last block sees the most keys: it writes, the others add.
      for (int64_t block = n.blocks() - 1; block >= 0; --block) {
        const int64_t first = block * rows;
        const int64_t count = std::min(rows, n.queries - first);
        const int64_t seen = n.seen(first + count - 1);
        const int64_t at = n.query_head(i) + first * packed;
        const int64_t out = n.out_head(i) + first * stride;
        const float add = block == n.blocks() - 1 ? 0.0f : 1.0f;
        float* p = weights.data();
        float* ds = slopes.data();
        gemm('N', 'T', count, seen, width, n.scale, q + at, packed, keys, packed, 0.0f,
             p, seen);
        gemm('N', 'T', count, seen, width, 1.0f, dout + out, stride, values, packed,
             0.0f, ds, seen);
        for (int64_t r = 0; r < count; ++r) {
          RowBackward(n.seen(first + r), seen, width, lse[i * n.queries + first + r],
                      o + out + r * stride, dout + out + r * stride, p + r * seen,
                      ds + r * seen);
        }
        gemm('T', 'N', seen, width, count, 1.0f, p, seen, dout + out, stride, add,
             value_slopes, packed);
        gemm('T', 'N', seen, width, count, n.scale, ds, seen, q + at, packed, add,
             key_slopes, packed);
        gemm('N', 'N', count, width, seen, n.scale, ds, seen, keys, packed, 0.0f,
             dq + at, packed);
      }
    }
  }
  return Ended(failed);
}

ffi::Error CallForward(Floats q, Floats k, Floats v, Out o, Out lse, bool causal,
                       float scale) {
  Sizes n;
  if (auto error = Fits(q, k, causal, scale, &n); error.failure()) return error;
  return Forward(n, q.typed_data(), k.typed_data(), v.typed_data(), o->typed_data(),
                 lse->typed_data());
}

ffi::Error CallBackward(Floats q, Floats k, Floats v, Floats o, Floats lse, Floats dout,
                        Out dq, Out dk, Out dv, bool causal, float scale) {
  Sizes n;
  if (auto error = Fits(q, k, causal, scale, &n); error.failure()) return error;
  return Backward(n, q.typed_data(), k.typed_data(), v.typed_data(), o.typed_data(),
                  lse.typed_data(), dout.typed_data(), dq->typed_data(),
                  dk->typed_data(), dv->typed_data());
}

ffi::Error CallPackedForward(Floats qkv, Out o, Out lse, bool causal, float scale) {
  const Sizes n = Packed(qkv, causal, scale);
  const float* q = qkv.typed_data();
  return Forward(n, q, q + n.stride(), q + 2 * n.stride(), o->typed_data(),
                 lse->typed_data());
}

ffi::Error CallPackedBackward(Floats qkv, Floats o, Floats lse, Floats dout, Out dqkv,
                              bool causal, float scale) {
  const Sizes n = Packed(qkv, causal, scale);
  const float* q = qkv.typed_data();
  float* dq = dqkv->typed_data();
  return Backward(n, q, q + n.stride(), q + 2 * n.stride(), o.typed_data(),
                  lse.typed_data(), dout.typed_data(), dq, dq + n.stride(),
                  dq + 2 * n.stride());
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(DlxOneDnnAttentionForward, CallForward,
                              Results<2>(Arguments<3>())
                                  .Attr<bool>("causal")
                                  .Attr<float>("scale"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(DlxOneDnnAttentionBackward, CallBackward,
                              Results<3>(Arguments<6>())
                                  .Attr<bool>("causal")
                                  .Attr<float>("scale"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(DlxOneDnnAttentionPackedForward, CallPackedForward,
                              Results<2>(Arguments<1>())
                                  .Attr<bool>("causal")
                                  .Attr<float>("scale"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(DlxOneDnnAttentionPackedBackward, CallPackedBackward,
                              Results<1>(Arguments<4>())
                                  .Attr<bool>("causal")
                                  .Attr<float>("scale"));
