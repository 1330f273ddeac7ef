// The element types of XLA's arrays as oneDNN names them.
//
// An operation of float32 and bfloat16 takes xla::ffi::AnyBuffer and asks `TypeOf` of
// each; what it sums in is float32.

#ifndef DLX_KERNELS_ONEDNN_TYPES_H_
#define DLX_KERNELS_ONEDNN_TYPES_H_

#include <oneapi/dnnl/dnnl.hpp>

#include "xla/ffi/api/ffi.h"

// undef: neither float32 nor bfloat16.
inline dnnl::memory::data_type TypeOf(const xla::ffi::AnyBuffer& x) {
  switch (x.element_type()) {
    case xla::ffi::F32:
      return dnnl::memory::data_type::f32;
    case xla::ffi::BF16:
      return dnnl::memory::data_type::bf16;
    default:
      return dnnl::memory::data_type::undef;
  }
}

// Whether the CPU multiplies bfloat16 by instructions of its own, and oneDNN by them.
inline bool HasBfloat16() {
  static const unsigned has = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  constexpr auto wanted = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
  return (has & wanted) == wanted;
}

#endif  // DLX_KERNELS_ONEDNN_TYPES_H_
