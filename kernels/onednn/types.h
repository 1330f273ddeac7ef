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

#endif  // DLX_KERNELS_ONEDNN_TYPES_H_
