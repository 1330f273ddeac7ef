// Attention and its derivative as XLA FFI calls; the products are oneDNN's.
//
// Arrays are float32 or bfloat16, all alike, but for lse: float32. Scores, weights and
// sums are float32; what of them goes into a product has the type of the arrays.
//
// forward:  q [B,L,H,K], k v [B,M,H,K] -> o [B,L,H,K], lse [B,H,L]
// backward: q, k, v, o, do [B,L,H,K], lse -> dq [B,L,H,K], dk dv [B,M,H,K]
//
// The same of packed arrays, for L = M: qkv [B,L,3,H,K] -> o, lse and
// qkv, o, do, lse -> dqkv [B,L,3,H,K].
//
// lse is the logarithm of the sum of the exponentials of a query's scores. A thread takes
// one head of one example after the other. Its queries come in blocks of about 64, whose
// scores stay in the cache; heads are read and written where they lie, by strides. Keys
// that no query of a block may see are not touched.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <type_traits>
#include <vector>

#include <omp.h>
#include "xla/ffi/api/ffi.h"

#include "arithmetic.h"
#include "bindings.h"
#include "small_products.h"
#include "types.h"

namespace {

namespace ffi = xla::ffi;

using dnnl::memory;
using Any = ffi::AnyBuffer;
using Out = ffi::Result<Floats>;
using AnyOut = ffi::Result<Any>;

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

template <typename T>
INLINE float AlongOf(int64_t width, const T* __restrict__ o, const T* __restrict__ dout) {
  float along = 0;
#pragma omp simd reduction(+ : along)
  for (int64_t j = 0; j < width; ++j) along += Wide(o[j]) * Wide(dout[j]);
  return along;
}

CLONES float Along(int64_t width, const float* o, const float* dout) {
  return AlongOf(width, o, dout);
}

CLONES float AlongHalf(int64_t width, const Half* o, const Half* dout) {
  return AlongOf(width, o, dout);
}

float Along(int64_t width, const Half* o, const Half* dout) {
  return AlongHalf(width, o, dout);
}

// One query: scores -> weights p, and slopes of p -> those of the scores. `along` is the
// product of o and its slope.
CLONES void RowBackward(int64_t seen, int64_t keys, float along, float lse,
                        float* __restrict__ p, float* __restrict__ slopes) {
#pragma omp simd
  for (int64_t j = 0; j < seen; ++j) {
    const float weight = Exp(p[j] - lse);
    p[j] = weight;
    slopes[j] = weight * (slopes[j] - along);
  }
  std::fill(p + seen, p + keys, 0.0f);
  std::fill(slopes + seen, slopes + keys, 0.0f);
}

// Whether all are of one type that is computed.
bool Alike(std::initializer_list<const Any*> all) {
  const auto type = TypeOf(**all.begin());
  for (const Any* x : all) {
    if (TypeOf(*x) != type) return false;
  }
  return type != memory::data_type::undef;
}

ffi::Error Wrong() {
  return ffi::Error::InvalidArgument("attention of arrays of other types");
}

bool IsHalf(const Any& x) { return x.element_type() == ffi::BF16; }

template <typename T>
T* Data(const Any& x) {
  return static_cast<T*>(x.untyped_data());
}

ffi::Error Fits(const Any& q, const Any& k, bool causal, float scale, Sizes* n) {
  const auto a = q.dimensions(), b = k.dimensions();
  *n = {a[0], a[1], a[2], a[3], b[1], causal, scale, 1};
  if (b[0] != a[0] || b[2] != a[2] || b[3] != a[3] || b[1] < 1) {
    return ffi::Error::InvalidArgument("attention of arrays of other sizes");
  }
  return ffi::Error::Success();
}

Sizes Packed(const Any& qkv, bool causal, float scale) {
  const auto a = qkv.dimensions();
  return {a[0], a[1], a[3], a[4], a[1], causal, scale, 3};
}

ffi::Error Ended(const std::atomic<bool>& failed) {
  return failed ? ffi::Error::Internal("oneDNN refused a product")
                : ffi::Error::Success();
}

template <typename T>
ffi::Error Forward(const Sizes& n, const T* q, const T* k, const T* v, T* o,
                   float* lse) {
  constexpr bool kHalf = std::is_same_v<T, Half>;
  std::atomic<bool> failed = false;
  const Gemm gemm{failed};
  const int64_t stride = n.stride(), packed = n.packed(), rows = n.rows();
#pragma omp parallel num_threads(n.threads())
  {
    std::vector<float> scores(rows * n.keys);
    std::vector<float> sums(rows);
    std::vector<float> total(kHalf ? rows * n.width : 0);
    std::vector<T> weights(kHalf ? rows * n.keys : 0);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < n.batch * n.heads; ++i) {
      const T* keys = k + n.key_head(i);
      const T* values = v + n.key_head(i);
      for (int64_t first = 0; first < n.queries; first += rows) {
        const int64_t count = std::min(rows, n.queries - first);
        const int64_t seen = n.seen(first + count - 1);
        T* out = o + n.out_head(i) + first * stride;
        gemm('N', 'T', count, seen, n.width, n.scale,
             q + n.query_head(i) + first * packed, packed, keys, packed, 0.0f,
             scores.data(), seen);
        for (int64_t r = 0; r < count; ++r) {
          float largest;
          sums[r] = Exponentials(n.seen(first + r), seen, scores.data() + r * seen,
                                 &largest);
          lse[i * n.queries + first + r] = largest + std::log(sums[r]);
        }
        const T* p = As(count * seen, scores.data(), &weights);
        if constexpr (kHalf) {
          gemm('N', 'N', count, n.width, seen, 1.0f, p, seen, values, packed, 0.0f,
               total.data(), n.width);
          for (int64_t r = 0; r < count; ++r) {
            Narrow(n.width, 1.0f / sums[r], total.data() + r * n.width,
                   out + r * stride);
          }
        } else {
          gemm('N', 'N', count, n.width, seen, 1.0f, p, seen, values, packed, 0.0f, out,
               stride);
          for (int64_t r = 0; r < count; ++r) {
            Times(n.width, 1.0f / sums[r], out + r * stride);
          }
        }
      }
    }
  }
  return Ended(failed);
}

// Sums of a head, as rows of the result: in place, or rounded at the end.
template <typename T>
class Sums {
 public:
  Sums(int64_t rows, int64_t width) : width_(width), own_(kHalf ? rows * width : 0) {}

  // Where they are added up for rows that begin at `to`, `ld` apart.
  float* At(T* to) {
    if constexpr (kHalf) {
      return own_.data();
    } else {
      return to;
    }
  }
  int64_t ld(int64_t ld) const { return kHalf ? width_ : ld; }

  void Write(int64_t rows, T* to, int64_t ld) {
    if constexpr (kHalf) {
      for (int64_t r = 0; r < rows; ++r) {
        Narrow(width_, 1.0f, own_.data() + r * width_, to + r * ld);
      }
    }
  }

 private:
  static constexpr bool kHalf = std::is_same_v<T, Half>;
  int64_t width_;
  std::vector<float> own_;
};

template <typename T>
ffi::Error Backward(const Sizes& n, const T* q, const T* k, const T* v, const T* o,
                    const float* lse, const T* dout, T* dq, T* dk, T* dv) {
  constexpr bool kHalf = std::is_same_v<T, Half>;
  std::atomic<bool> failed = false;
  const Gemm gemm{failed};
  const int64_t stride = n.stride(), packed = n.packed(), rows = n.rows();
  const int64_t width = n.width;
#pragma omp parallel num_threads(n.threads())
  {
    std::vector<float> weights(rows * n.keys), slopes(rows * n.keys);
    std::vector<T> p_space(kHalf ? rows * n.keys : 0), s_space(p_space.size());
    Sums<T> of_queries(rows, width), of_keys(n.keys, width), of_values(n.keys, width);
    const int64_t ld = of_keys.ld(packed);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < n.batch * n.heads; ++i) {
      const T* keys = k + n.key_head(i);
      const T* values = v + n.key_head(i);
      float* key_slopes = of_keys.At(dk + n.key_head(i));
      float* value_slopes = of_values.At(dv + n.key_head(i));
      for (int64_t m = n.queries ? n.seen(n.queries - 1) : 0; m < n.keys; ++m) {
        std::fill(key_slopes + m * ld, key_slopes + m * ld + width, 0.0f);
        std::fill(value_slopes + m * ld, value_slopes + m * ld + width, 0.0f);
      }
      // The last block sees the most keys: it writes, the others add.
      for (int64_t block = n.blocks() - 1; block >= 0; --block) {
        const int64_t first = block * rows;
        const int64_t count = std::min(rows, n.queries - first);
        const int64_t seen = n.seen(first + count - 1);
        const int64_t at = n.query_head(i) + first * packed;
        const int64_t out = n.out_head(i) + first * stride;
        const float add = block == n.blocks() - 1 ? 0.0f : 1.0f;
        gemm('N', 'T', count, seen, width, n.scale, q + at, packed, keys, packed, 0.0f,
             weights.data(), seen);
        gemm('N', 'T', count, seen, width, 1.0f, dout + out, stride, values, packed,
             0.0f, slopes.data(), seen);
        for (int64_t r = 0; r < count; ++r) {
          const int64_t row = out + r * stride;
          RowBackward(n.seen(first + r), seen, Along(width, o + row, dout + row),
                      lse[i * n.queries + first + r], weights.data() + r * seen,
                      slopes.data() + r * seen);
        }
        const T* p = As(count * seen, weights.data(), &p_space);
        const T* ds = As(count * seen, slopes.data(), &s_space);
        gemm('T', 'N', seen, width, count, 1.0f, p, seen, dout + out, stride, add,
             value_slopes, ld);
        gemm('T', 'N', seen, width, count, n.scale, ds, seen, q + at, packed, add,
             key_slopes, ld);
        gemm('N', 'N', count, width, seen, n.scale, ds, seen, keys, packed, 0.0f,
             of_queries.At(dq + at), of_queries.ld(packed));
        of_queries.Write(count, dq + at, packed);
      }
      of_keys.Write(n.keys, dk + n.key_head(i), packed);
      of_values.Write(n.keys, dv + n.key_head(i), packed);
    }
  }
  return Ended(failed);
}

template <typename T>
ffi::Error ForwardOf(const Sizes& n, const Any& q, const Any& k, const Any& v,
                     const Any& o, float* lse) {
  return Forward<T>(n, Data<T>(q), Data<T>(k), Data<T>(v), Data<T>(o), lse);
}

ffi::Error CallForward(Any q, Any k, Any v, AnyOut o, Out lse, bool causal,
                       float scale) {
  Sizes n;
  if (!Alike({&q, &k, &v, &*o})) return Wrong();
  if (auto error = Fits(q, k, causal, scale, &n); error.failure()) return error;
  return (IsHalf(q) ? ForwardOf<Half> : ForwardOf<float>)(n, q, k, v, *o,
                                                          lse->typed_data());
}

template <typename T>
ffi::Error BackwardOf(const Sizes& n, const Any& q, const Any& k, const Any& v,
                      const Any& o, const float* lse, const Any& dout, const Any& dq,
                      const Any& dk, const Any& dv) {
  return Backward<T>(n, Data<T>(q), Data<T>(k), Data<T>(v), Data<T>(o), lse,
                     Data<T>(dout), Data<T>(dq), Data<T>(dk), Data<T>(dv));
}

ffi::Error CallBackward(Any q, Any k, Any v, Any o, Any dout, Floats lse, AnyOut dq,
                        AnyOut dk, AnyOut dv, bool causal, float scale) {
  Sizes n;
  if (!Alike({&q, &k, &v, &o, &dout, &*dq, &*dk, &*dv})) return Wrong();
  if (auto error = Fits(q, k, causal, scale, &n); error.failure()) return error;
  return (IsHalf(q) ? BackwardOf<Half> : BackwardOf<float>)(
      n, q, k, v, o, lse.typed_data(), dout, *dq, *dk, *dv);
}

template <typename T>
ffi::Error PackedForwardOf(const Sizes& n, const Any& qkv, const Any& o, float* lse) {
  const T* q = Data<T>(qkv);
  return Forward<T>(n, q, q + n.stride(), q + 2 * n.stride(), Data<T>(o), lse);
}

ffi::Error CallPackedForward(Any qkv, AnyOut o, Out lse, bool causal, float scale) {
  if (!Alike({&qkv, &*o})) return Wrong();
  return (IsHalf(qkv) ? PackedForwardOf<Half> : PackedForwardOf<float>)(
      Packed(qkv, causal, scale), qkv, *o, lse->typed_data());
}

template <typename T>
ffi::Error PackedBackwardOf(const Sizes& n, const Any& qkv, const Any& o,
                            const float* lse, const Any& dout, const Any& dqkv) {
  const T* q = Data<T>(qkv);
  T* dq = Data<T>(dqkv);
  return Backward<T>(n, q, q + n.stride(), q + 2 * n.stride(), Data<T>(o), lse,
                     Data<T>(dout), dq, dq + n.stride(), dq + 2 * n.stride());
}

ffi::Error CallPackedBackward(Any qkv, Any o, Any dout, Floats lse, AnyOut dqkv,
                              bool causal, float scale) {
  if (!Alike({&qkv, &o, &dout, &*dqkv})) return Wrong();
  return (IsHalf(qkv) ? PackedBackwardOf<Half> : PackedBackwardOf<float>)(
      Packed(qkv, causal, scale), qkv, o, lse.typed_data(), dout, *dqkv);
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    DlxOneDnnAttentionForward, CallForward,
    Results<1>(Results<1, Any>(Arguments<3, Any>(ffi::Ffi::Bind())))
        .Attr<bool>("causal")
        .Attr<float>("scale"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    DlxOneDnnAttentionBackward, CallBackward,
    (Results<3, Any>(Arguments<1>(Arguments<5, Any>(ffi::Ffi::Bind()))))
        .Attr<bool>("causal")
        .Attr<float>("scale"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    DlxOneDnnAttentionPackedForward, CallPackedForward,
    Results<1>(Results<1, Any>(Arguments<1, Any>(ffi::Ffi::Bind())))
        .Attr<bool>("causal")
        .Attr<float>("scale"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    DlxOneDnnAttentionPackedBackward, CallPackedBackward,
    (Results<1, Any>(Arguments<1>(Arguments<3, Any>(ffi::Ffi::Bind()))))
        .Attr<bool>("causal")
        .Attr<float>("scale"));
