// What compilers turn into vector instructions in the loops of this folder.

#ifndef DLX_KERNELS_ONEDNN_ARITHMETIC_H_
#define DLX_KERNELS_ONEDNN_ARITHMETIC_H_

#include <cmath>
#include <cstdint>
#include <cstring>

// A function for several instruction sets, chosen when the library is loaded.
#if defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CLONES
#endif
#define INLINE inline __attribute__((always_inline))

// bfloat16: the upper half of the bits of a float.
using Half = uint16_t;

INLINE float Wide(float x) { return x; }

INLINE float Wide(Half x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof(wide));
  return wide;
}

INLINE void Put(float x, float* to) { *to = x; }

// Rounds to the nearest, to the even one of two; a NaN stays one.
INLINE void Put(float x, Half* to) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  *to = static_cast<Half>(x == x ? rounded : (bits >> 16) | 0x40u);
}

// e^x by 2^n e^r, |r| <= log(2) / 2, and a polynomial of degree 6: within 2 ulp.
INLINE float Exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float n = std::floor(x * 1.44269504f + 0.5f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof(scale));
  return p * scale;
}

INLINE float Sigmoid(float x) { return 1.0f / (1.0f + Exp(-x)); }

// Near 0 a Taylor series up to x^11, so that small values keep their relative accuracy.
INLINE float Tanh(float x) {
  const float size = std::fabs(x);
  const float far = 1.0f - 2.0f / (1.0f + Exp(2.0f * size));
  const float z = x * x;
  float p = -1382.0f / 155925.0f;
  p = p * z + 62.0f / 2835.0f;
  p = p * z - 17.0f / 315.0f;
  p = p * z + 2.0f / 15.0f;
  p = p * z - 1.0f / 3.0f;
  const float near = x + x * z * p;
  return size < 0.35f ? near : std::copysign(far, x);
}

#endif  // DLX_KERNELS_ONEDNN_ARITHMETIC_H_
