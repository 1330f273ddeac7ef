// Convolutions of oneDNN as XLA FFI calls: float32, NHWC x HWIO -> NHWC.
//
// kind 0: (x, w) -> y, the convolution; 1: (dy, w) -> dx; 2: (x, dy) -> dw.
// geometry: n h w i kh kw o ho wo, strides (2), dilation (2), low and high pads (4),
// groups. The filter has i / groups inputs; output o is of group o / (o / groups).
//
// A primitive is made once for each kind and geometry and kept for the life of the
// process. Activations stay NHWC; weights are reordered to what the primitive wants,
// in memory of the calling thread.

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include <oneapi/dnnl/dnnl.hpp>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using dnnl::memory;

using Buffer = ffi::Buffer<ffi::F32>;
using Geometry = std::vector<int64_t>;

enum Kind : int64_t { kForward = 0, kInputGradient = 1, kFilterGradient = 2 };
constexpr size_t kGeometrySize = 18;
constexpr size_t kAlignment = 64;

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

struct Plan {
  dnnl::primitive conv;
  dnnl::primitive reorder;  // Of the weights; empty where they lie as wanted.
  memory::desc x, w, y, plain_w, scratch;
};

std::unique_ptr<Plan> MakePlan(int64_t kind, const Geometry& g) {
  using Dims = memory::dims;
  using Tag = memory::format_tag;
  const auto f32 = memory::data_type::f32;
  const auto direct = dnnl::algorithm::convolution_direct;
  const int64_t groups = g[17], inputs = g[3] / groups, outputs = g[6] / groups;
  const Dims x_dims{g[0], g[3], g[1], g[2]};
  Dims w_dims{outputs, inputs, g[4], g[5]};
  if (groups > 1) w_dims.insert(w_dims.begin(), groups);
  const Dims y_dims{g[0], g[6], g[7], g[8]};
  const Dims strides{g[9], g[10]}, dilation{g[11] - 1, g[12] - 1};
  const Dims low{g[13], g[15]}, high{g[14], g[16]};
  auto plan = std::make_unique<Plan>();
  plan->plain_w = memory::desc(w_dims, f32, groups > 1 ? Tag::hwigo : Tag::hwio);
  const memory::desc x(x_dims, f32, Tag::nhwc), y(y_dims, f32, Tag::nhwc);
  const memory::desc any_w(w_dims, f32, Tag::any);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const dnnl::convolution_forward::primitive_desc forward(
      Engine(), dnnl::prop_kind::forward_training, direct, x, any_w, y, strides,
      dilation, low, high, attributes);
  plan->x = x;
  plan->y = y;
  if (kind == kForward) {
    plan->conv = dnnl::convolution_forward(forward);
    plan->w = forward.weights_desc();
    plan->scratch = forward.scratchpad_desc();
  } else if (kind == kInputGradient) {
    const dnnl::convolution_backward_data::primitive_desc backward(
        Engine(), direct, x, any_w, y, strides, dilation, low, high, forward,
        attributes);
    plan->conv = dnnl::convolution_backward_data(backward);
    plan->w = backward.weights_desc();
    plan->scratch = backward.scratchpad_desc();
  } else {
    const dnnl::convolution_backward_weights::primitive_desc backward(
        Engine(), direct, x, any_w, y, strides, dilation, low, high, forward,
        attributes);
    plan->conv = dnnl::convolution_backward_weights(backward);
    plan->w = backward.diff_weights_desc();
    plan->scratch = backward.scratchpad_desc();
  }
  if (plan->w != plan->plain_w) {
    const bool back = kind == kFilterGradient;
    plan->reorder = dnnl::reorder(dnnl::reorder::primitive_desc(
        Engine(), back ? plan->w : plan->plain_w, Engine(),
        back ? plan->plain_w : plan->w));
  }
  return plan;
}

const Plan& PlanFor(int64_t kind, const Geometry& geometry) {
  static std::mutex mutex;
  static auto* plans =
      new std::map<std::pair<int64_t, Geometry>, std::unique_ptr<Plan>>();
  const std::lock_guard<std::mutex> guard(mutex);
  auto& plan = (*plans)[{kind, geometry}];
  if (plan == nullptr) plan = MakePlan(kind, geometry);
  return *plan;
}

// Memory of one thread that grows to what the largest call wants.
class Scratch {
 public:
  void* Get(size_t size) {
    if (bytes_.size() < size + kAlignment) bytes_.resize(size + kAlignment);
    const auto address = reinterpret_cast<uintptr_t>(bytes_.data());
    return reinterpret_cast<void*>((address + kAlignment - 1) & ~(kAlignment - 1));
  }

 private:
  std::vector<char> bytes_;
};

void Execute(int64_t kind, const Geometry& geometry, float* x, float* w, float* y) {
  thread_local Scratch scratch, weights;
  const Plan& plan = PlanFor(kind, geometry);
  dnnl::stream stream(Engine());
  memory mx(plan.x, Engine(), x), my(plan.y, Engine(), y);
  memory plain_w(plan.plain_w, Engine(), w), mw = plain_w;
  memory ms(plan.scratch, Engine(), scratch.Get(plan.scratch.get_size()));
  const bool moved = plan.w != plan.plain_w;
  if (moved) mw = memory(plan.w, Engine(), weights.Get(plan.w.get_size()));
  if (moved && kind != kFilterGradient) {
    plan.reorder.execute(stream, {{DNNL_ARG_FROM, plain_w}, {DNNL_ARG_TO, mw}});
  }
  if (kind == kForward) {
    plan.conv.execute(stream, {{DNNL_ARG_SRC, mx},
                               {DNNL_ARG_WEIGHTS, mw},
                               {DNNL_ARG_DST, my},
                               {DNNL_ARG_SCRATCHPAD, ms}});
  } else if (kind == kInputGradient) {
    plan.conv.execute(stream, {{DNNL_ARG_DIFF_SRC, mx},
                               {DNNL_ARG_WEIGHTS, mw},
                               {DNNL_ARG_DIFF_DST, my},
                               {DNNL_ARG_SCRATCHPAD, ms}});
  } else {
    plan.conv.execute(stream, {{DNNL_ARG_SRC, mx},
                               {DNNL_ARG_DIFF_WEIGHTS, mw},
                               {DNNL_ARG_DIFF_DST, my},
                               {DNNL_ARG_SCRATCHPAD, ms}});
    if (moved) {
      plan.reorder.execute(stream, {{DNNL_ARG_FROM, mw}, {DNNL_ARG_TO, plain_w}});
    }
  }
  stream.wait();
}

ffi::Error Convolve(ffi::Span<const int64_t> geometry, int64_t kind, Buffer a, Buffer b,
                    ffi::Result<Buffer> out) {
  if (geometry.size() != kGeometrySize) {
    return ffi::Error::InvalidArgument("geometry has 18 numbers");
  }
  const Geometry key(geometry.begin(), geometry.end());
  float* first = a.typed_data();
  float* second = b.typed_data();
  float* result = out->typed_data();
  try {
    if (kind == kForward) {
      Execute(kind, key, first, second, result);
    } else if (kind == kInputGradient) {
      Execute(kind, key, result, second, first);
    } else {
      Execute(kind, key, first, result, second);
    }
  } catch (const dnnl::error& error) {
    return ffi::Error::Internal(error.what());
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(DlxOneDnnConv, Convolve,
                              ffi::Ffi::Bind()
                                  .Attr<ffi::Span<const int64_t>>("geometry")
                                  .Attr<int64_t>("kind")
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Ret<Buffer>());
