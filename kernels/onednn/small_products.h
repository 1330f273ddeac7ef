// Products of small matrices in one thread, of float32 or bfloat16, summed in float32.

#ifndef DLX_KERNELS_ONEDNN_SMALL_PRODUCTS_H_
#define DLX_KERNELS_ONEDNN_SMALL_PRODUCTS_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include <oneapi/dnnl/dnnl.h>

#include "arithmetic.h"
#include "types.h"

// In the library, and not in its headers: dnnl_sgemm of operands in bfloat16.
extern "C" dnnl_status_t dnnl_gemm_bf16bf16f32(char, char, dnnl_dim_t, dnnl_dim_t,
                                               dnnl_dim_t, float, const Half*,
                                               dnnl_dim_t, const Half*, dnnl_dim_t,
                                               float, float*, dnnl_dim_t);

namespace {

CLONES void Narrow(int64_t n, float by, const float* __restrict__ x,
                   Half* __restrict__ to) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) Put(by * x[j], to + j);
}

CLONES void Widen(int64_t rows, int64_t columns, int64_t ld, const Half* __restrict__ x,
                  float* __restrict__ to) {
  for (int64_t i = 0; i < rows; ++i) {
#pragma omp simd
    for (int64_t j = 0; j < columns; ++j) to[i * columns + j] = Wide(x[i * ld + j]);
  }
}

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

  void operator()(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha,
                  const Half* a, int64_t lda, const Half* b, int64_t ldb, float beta,
                  float* c, int64_t ldc) const {
    if (HasBfloat16()) {
      if (dnnl_gemm_bf16bf16f32(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc) !=
          dnnl_success) {
        failed = true;
      }
      return;
    }
    thread_local std::vector<float> wide_a, wide_b;
    const int64_t a_rows = ta == 'N' ? m : k, b_rows = tb == 'N' ? k : n;
    const int64_t a_columns = m * k / a_rows, b_columns = n * k / b_rows;
    wide_a.resize(m * k);
    wide_b.resize(n * k);
    Widen(a_rows, a_columns, lda, a, wide_a.data());
    Widen(b_rows, b_columns, ldb, b, wide_b.data());
    (*this)(ta, tb, m, n, k, alpha, wide_a.data(), a_columns, wide_b.data(), b_columns,
            beta, c, ldc);
  }
};

// float32 numbers as T, in a product: as they are, or rounded into `space`.
inline const float* As(int64_t, const float* x, std::vector<float>*) { return x; }

inline const Half* As(int64_t n, const float* x, std::vector<Half>* space) {
  Narrow(n, 1.0f, x, space->data());
  return space->data();
}

}  // namespace

#endif  // DLX_KERNELS_ONEDNN_SMALL_PRODUCTS_H_
