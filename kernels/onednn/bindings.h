// How XLA calls the functions of this folder: by arrays, then by attributes.

#ifndef DLX_KERNELS_ONEDNN_BINDINGS_H_
#define DLX_KERNELS_ONEDNN_BINDINGS_H_

#include <utility>

#include "xla/ffi/api/ffi.h"

using Floats = xla::ffi::Buffer<xla::ffi::F32>;
using Ints = xla::ffi::Buffer<xla::ffi::S32>;

// `binding` with `count` arrays T more as arguments, 1 or more. It cannot be moved, so
// that each step makes another.
template <int count, typename T = Floats, typename Binding>
auto Arguments(Binding binding) {
  if constexpr (count == 1) {
    return std::move(binding).template Arg<T>();
  } else {
    return Arguments<count - 1, T>(std::move(binding).template Arg<T>());
  }
}

// `binding` with `count` arrays T more as results.
template <int count, typename T = Floats, typename Binding>
auto Results(Binding binding) {
  if constexpr (count == 1) {
    return std::move(binding).template Ret<T>();
  } else {
    return Results<count - 1, T>(std::move(binding).template Ret<T>());
  }
}

// `count` float arrays as arguments, and nothing before them.
template <int count>
auto Arguments() {
  return Arguments<count>(xla::ffi::Ffi::Bind());
}

#endif  // DLX_KERNELS_ONEDNN_BINDINGS_H_
