// A sparse matrix times a dense one as an XLA FFI call, float32.
//
// rows columns s32[X], values [X], x [M,F] -> out [N,F]: out[rows[e]] += values[e]
// x[columns[e]]. Entries are in any order; those that lie outside are left out. Threads
// take columns of x, so that none writes where another does.

#include <algorithm>
#include <cstdint>

#include <omp.h>

#include "xla/ffi/api/ffi.h"

#include "arithmetic.h"
#include "bindings.h"

namespace {

namespace ffi = xla::ffi;


constexpr int64_t kColumns = 16;  // Of a thread: a cache line.
constexpr int64_t kWorthThreads = 1 << 21;  // Multiply-adds.

struct Sizes {
  int64_t entries, inputs, outputs, features;
};

// `width` columns; a constant where it is known, so that rows stay in registers.
template <int64_t kWidth>
inline __attribute__((always_inline)) void Columns(
    const Sizes& n, int64_t width, const int32_t* __restrict__ rows,
    const int32_t* __restrict__ columns, const float* __restrict__ values,
    const float* __restrict__ x, float* __restrict__ out) {
  const int64_t w = kWidth ? kWidth : width;
  for (int64_t row = 0; row < n.outputs; ++row) {
    std::fill(out + row * n.features, out + row * n.features + w, 0.0f);
  }
  for (int64_t e = 0; e < n.entries; ++e) {
    const auto row = static_cast<uint32_t>(rows[e]);
    const auto column = static_cast<uint32_t>(columns[e]);
    if (row >= n.outputs || column >= n.inputs) continue;
    const float value = values[e];
    const float* from = x + column * n.features;
    float* to = out + row * n.features;
#pragma omp simd
    for (int64_t j = 0; j < w; ++j) to[j] += value * from[j];
  }
}

CLONES void Part(const Sizes& n, int64_t width, const int32_t* rows,
                 const int32_t* columns, const float* values, const float* x,
                 float* out) {
  if (width == kColumns) {
    Columns<kColumns>(n, width, rows, columns, values, x, out);
  } else {
    Columns<0>(n, width, rows, columns, values, x, out);
  }
}

ffi::Error Product(Ints rows, Ints columns, Floats values, Floats x,
                   ffi::Result<Floats> out) {
  const Sizes n{static_cast<int64_t>(rows.element_count()), x.dimensions()[0],
                out->dimensions()[0], x.dimensions()[1]};
  if (static_cast<int64_t>(columns.element_count()) != n.entries ||
      static_cast<int64_t>(values.element_count()) != n.entries ||
      out->dimensions()[1] != n.features) {
    return ffi::Error::InvalidArgument("a sparse product of arrays of other sizes");
  }
  const int64_t parts = (n.features + kColumns - 1) / kColumns;
  const int64_t threads =
      n.entries * n.features < kWorthThreads
          ? 1
          : std::min<int64_t>(omp_get_max_threads(), parts);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t first = part * kColumns;
    Part(n, std::min(kColumns, n.features - first), rows.typed_data(),
         columns.typed_data(), values.typed_data(), x.typed_data() + first,
         out->typed_data() + first);
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    DlxSparseProduct, Product,
    Results<1>(Arguments<2>(Arguments<2, Ints>(ffi::Ffi::Bind()))));
