// An LSTM along time and its derivative as XLA FFI calls: float32, and products of
// bfloat16 summed in float32 where u is.
//
// forward:  x [T,B,4H], u [H,4H], bias [4H], h0 c0 [B,H], length s32[B]
//           -> h [T,B,H], hT cT [B,H], gates [T,B,4H], old_h old_c [T,B,H]
// backward: dh [T,B,H], dhT dcT [B,H], gates, old_c, u, length
//           -> dx [T,B,4H], dh0 dc0 [B,H]
//
// Gates are input, forget, cell, output: c = f c + i g, h = o tanh(c). Past the end of a
// row its state stands still, h is 0 and so is dx. Rows know nothing of each other, so
// that every thread takes some of them through all of time without waiting for others.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include <omp.h>
#include <oneapi/dnnl/dnnl.hpp>

#include "xla/ffi/api/ffi.h"

#include "arithmetic.h"
#include "bindings.h"
#include "small_products.h"
#include "types.h"

namespace {

namespace ffi = xla::ffi;
using dnnl::memory;


constexpr int64_t kGates = 4;
constexpr int64_t kLeastRows = 8;  // Of a thread.
constexpr size_t kAlignment = 64;

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// One row of one step. `gates` holds h u and becomes the gates.
CLONES void RowForward(int64_t features, const float* __restrict__ x,
                       const float* __restrict__ hu, const float* __restrict__ bias,
                       const float* __restrict__ old_c, float* __restrict__ gates,
                       float* __restrict__ c, float* __restrict__ h) {
  const int64_t n = features;
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) {
    const float i = Sigmoid(x[j] + (hu[j] + bias[j]));
    const float f = Sigmoid(x[n + j] + (hu[n + j] + bias[n + j]));
    const float g = Tanh(x[2 * n + j] + (hu[2 * n + j] + bias[2 * n + j]));
    const float o = Sigmoid(x[3 * n + j] + (hu[3 * n + j] + bias[3 * n + j]));
    const float new_c = f * old_c[j] + i * g;
    gates[j] = i;
    gates[n + j] = f;
    gates[2 * n + j] = g;
    gates[3 * n + j] = o;
    c[j] = new_c;
    h[j] = o * Tanh(new_c);
  }
}

// One row of one step back. dc is that of the new c and becomes that of the old.
CLONES void RowBackward(int64_t features, const float* __restrict__ gates,
                        const float* __restrict__ old_c, const float* __restrict__ dout,
                        const float* __restrict__ dh, float* __restrict__ dc,
                        float* __restrict__ dx) {
  const int64_t n = features;
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) {
    const float i = gates[j], f = gates[n + j];
    const float g = gates[2 * n + j], o = gates[3 * n + j];
    const float t = Tanh(f * old_c[j] + i * g);
    const float d = dout[j] + dh[j];
    const float e = dc[j] + d * o * (1.0f - t * t);
    dx[j] = e * g * i * (1.0f - i);
    dx[n + j] = e * old_c[j] * f * (1.0f - f);
    dx[2 * n + j] = e * i * (1.0f - g * g);
    dx[3 * n + j] = d * t * o * (1.0f - o);
    dc[j] = e * f;
  }
}

struct Aligned {
  explicit Aligned(size_t floats) : bytes(floats * sizeof(float) + kAlignment) {}
  float* data() {
    const auto address = reinterpret_cast<uintptr_t>(bytes.data());
    return reinterpret_cast<float*>((address + kAlignment - 1) & ~(kAlignment - 1));
  }
  std::vector<char> bytes;
};

using Type = memory::data_type;

// [rows, inner] times a matrix that is packed once and used in every step. Of a matrix
// in bfloat16 both are in it where the CPU has its products, else both in float32.
struct Product {
  dnnl::matmul matmul;
  dnnl::reorder pack;
  memory::desc left, packed, plain, right, scratch;
  bool half;

  Product(int64_t rows, int64_t inner, int64_t outer, bool transposed, Type type)
      : half(type == Type::bf16 && HasBfloat16()) {
    using Tag = memory::format_tag;
    const auto inside = half ? Type::bf16 : Type::f32;
    left = memory::desc({rows, inner}, inside, Tag::ab);
    right = memory::desc({rows, outer}, Type::f32, Tag::ab);
    plain = memory::desc({inner, outer}, type, transposed ? Tag::ba : Tag::ab);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const dnnl::matmul::primitive_desc made(
        Engine(), left, memory::desc({inner, outer}, inside, Tag::any), right,
        attributes);
    matmul = dnnl::matmul(made);
    packed = made.weights_desc();
    scratch = made.scratchpad_desc();
    pack = dnnl::reorder(dnnl::reorder::primitive_desc(Engine(), plain, Engine(), packed));
  }
};

// Made once for each shape in the life of the process. A thread's product is made for
// one thread: inside a parallel region oneDNN sees no other.
const Product& ProductFor(int64_t rows, int64_t inner, int64_t outer, bool transposed,
                          Type type) {
  using Key = std::tuple<int64_t, int64_t, int64_t, bool, Type>;
  static std::mutex mutex;
  static auto* products = new std::map<Key, std::unique_ptr<Product>>();
  const std::lock_guard<std::mutex> guard(mutex);
  auto& product = (*products)[{rows, inner, outer, transposed, type}];
  if (product == nullptr) {
    product = std::make_unique<Product>(rows, inner, outer, transposed, type);
  }
  return *product;
}

// A product and a thread's memory for it.
class Running {
 public:
  Running(int64_t rows, int64_t inner, int64_t outer, bool transposed,
          const ffi::AnyBuffer& matrix)
      : product_(ProductFor(rows, inner, outer, transposed, TypeOf(matrix))),
        numbers_(rows * inner),
        halves_(product_.half ? numbers_ : 0),
        stream_(Engine()),
        packed_(product_.packed.get_size() / sizeof(float) + 1),
        scratch_(product_.scratch.get_size() / sizeof(float) + 1),
        left_(product_.left, Engine(), nullptr),
        right_(product_.right, Engine(), nullptr),
        matrix_(product_.packed, Engine(), packed_.data()) {
    memory plain(product_.plain, Engine(), matrix.untyped_data());
    memory own(product_.scratch, Engine(), scratch_.data());
    product_.pack.execute(stream_, {{DNNL_ARG_FROM, plain}, {DNNL_ARG_TO, matrix_}});
    arguments_ = {{DNNL_ARG_SRC, left_},
                  {DNNL_ARG_WEIGHTS, matrix_},
                  {DNNL_ARG_DST, right_},
                  {DNNL_ARG_SCRATCHPAD, own}};
  }

  void operator()(float* left, float* right) {
    if (product_.half) Narrow(numbers_, 1.0f, left, halves_.data());
    left_.set_data_handle(product_.half ? static_cast<void*>(halves_.data()) : left);
    right_.set_data_handle(right);
    product_.matmul.execute(stream_, arguments_);
  }

 private:
  const Product& product_;
  int64_t numbers_;
  std::vector<Half> halves_;
  dnnl::stream stream_;
  Aligned packed_, scratch_;
  memory left_, right_, matrix_;
  std::unordered_map<int, memory> arguments_;
};

// Calls part(first row, rows) for parts of all rows, each in a thread of its own.
template <class Part>
ffi::Error InParts(int64_t rows, const Part& part) {
  const int64_t most = std::max<int64_t>(rows / kLeastRows, 1);
  const int64_t count = std::min<int64_t>(omp_get_max_threads(), most);
  const int64_t each = (rows + count - 1) / count;
  std::atomic<bool> failed(false);
#pragma omp parallel for num_threads(count) schedule(static)
  for (int64_t k = 0; k < count; ++k) {
    const int64_t first = k * each, own = std::min(each, rows - first);
    if (own <= 0) continue;
    try {
      part(first, own);
    } catch (const std::exception&) {  // None may leave a parallel region.
      failed = true;
    }
  }
  if (failed) return ffi::Error::Internal("oneDNN failed in an LSTM");
  return ffi::Error::Success();
}

void Copy(float* to, const float* from, int64_t floats) {
  std::memcpy(to, from, floats * sizeof(float));
}

ffi::Error Forward(bool reverse, Floats x, ffi::AnyBuffer u, Floats bias, Floats h0, Floats c0,
                   Ints length, ffi::Result<Floats> h, ffi::Result<Floats> last_h,
                   ffi::Result<Floats> last_c, ffi::Result<Floats> gates,
                   ffi::Result<Floats> old_h, ffi::Result<Floats> old_c) {
  const int64_t T = x.dimensions()[0], B = x.dimensions()[1], H = u.dimensions()[0];
  const int64_t G = kGates * H;
  if (TypeOf(u) == Type::undef) {
    return ffi::Error::InvalidArgument("an LSTM whose kernel has another type");
  }
  return InParts(B, [&](int64_t first, int64_t rows) {
    Running product(rows, H, G, false, u);
    Aligned hu(rows * G);
    float* state_h = last_h->typed_data() + first * H;
    float* state_c = last_c->typed_data() + first * H;
    Copy(state_h, h0.typed_data() + first * H, rows * H);
    Copy(state_c, c0.typed_data() + first * H, rows * H);
    for (int64_t step = 0; step < T; ++step) {
      const int64_t t = reverse ? T - 1 - step : step;
      const int64_t at = t * B + first;
      Copy(old_h->typed_data() + at * H, state_h, rows * H);
      Copy(old_c->typed_data() + at * H, state_c, rows * H);
      product(state_h, hu.data());
      for (int64_t row = 0; row < rows; ++row) {
        float* out = h->typed_data() + (at + row) * H;
        float* gate = gates->typed_data() + (at + row) * G;
        if (t >= length.typed_data()[first + row]) {
          std::fill(out, out + H, 0.0f);
          std::fill(gate, gate + G, 0.0f);
          continue;
        }
        RowForward(H, x.typed_data() + (at + row) * G, hu.data() + row * G,
                   bias.typed_data(), old_c->typed_data() + (at + row) * H, gate,
                   state_c + row * H, out);
        Copy(state_h + row * H, out, H);
      }
    }
  });
}

ffi::Error Backward(bool reverse, Floats dh, Floats last_dh, Floats last_dc,
                    Floats gates, Floats old_c, ffi::AnyBuffer u, Ints length,
                    ffi::Result<Floats> dx, ffi::Result<Floats> first_dh,
                    ffi::Result<Floats> first_dc) {
  const int64_t T = dh.dimensions()[0], B = dh.dimensions()[1], H = u.dimensions()[0];
  const int64_t G = kGates * H;
  if (TypeOf(u) == Type::undef) {
    return ffi::Error::InvalidArgument("an LSTM whose kernel has another type");
  }
  return InParts(B, [&](int64_t first, int64_t rows) {
    Running product(rows, G, H, true, u);
    Aligned before(rows * H);
    float* state_dh = first_dh->typed_data() + first * H;
    float* state_dc = first_dc->typed_data() + first * H;
    Copy(state_dh, last_dh.typed_data() + first * H, rows * H);
    Copy(state_dc, last_dc.typed_data() + first * H, rows * H);
    for (int64_t step = 0; step < T; ++step) {
      const int64_t t = reverse ? step : T - 1 - step;
      const int64_t at = t * B + first;
      float* slope = dx->typed_data() + at * G;
      for (int64_t row = 0; row < rows; ++row) {
        if (t >= length.typed_data()[first + row]) {
          std::fill(slope + row * G, slope + (row + 1) * G, 0.0f);
          continue;
        }
        RowBackward(H, gates.typed_data() + (at + row) * G,
                    old_c.typed_data() + (at + row) * H,
                    dh.typed_data() + (at + row) * H, state_dh + row * H,
                    state_dc + row * H, slope + row * G);
      }
      product(slope, before.data());
      for (int64_t row = 0; row < rows; ++row) {
        if (t < length.typed_data()[first + row]) {
          Copy(state_dh + row * H, before.data() + row * H, H);
        }
      }
    }
  });
}

// Float arrays, then the lengths, come after it.
auto Reversible() { return ffi::Ffi::Bind().Attr<bool>("reverse"); }

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    DlxOneDnnLstmForward, Forward,
    Results<6>(Arguments<1, Ints>(Arguments<3>(
        Arguments<1, ffi::AnyBuffer>(Arguments<1>(Reversible()))))));

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    DlxOneDnnLstmBackward, Backward,
    Results<3>(Arguments<1, Ints>(
        Arguments<1, ffi::AnyBuffer>(Arguments<5>(Reversible())))));
