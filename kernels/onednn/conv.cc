// Convolutions of oneDNN as XLA FFI calls: NHWC x HWIO -> NHWC, float32 or bfloat16.
//
// kind 0: (x, w) -> y, the convolution; 1: (dy, w) -> dx; 2: (x, dy) -> dw.
// geometry: n h w i kh kw o ho wo, strides (2), dilation (2), low and high pads (4),
// groups. The filter has i / groups inputs; output o is of group o / (o / groups).
//
// Both operands have one type; the result has it, too, or float32. Sums are float32. A
// CPU without instructions for products of bfloat16 computes them in float32.
//
// A primitive is made once for each kind, geometry and types and kept for the life of
// the process. Activations stay NHWC; what the primitive wants otherwise is reordered,
// in memory of the calling thread.
//
// The filter gradient of bfloat16 is computed by threads that take examples and do not
// wait for each other. oneDNN's own threads spin at barriers between examples: on two
// cores with other programs beside, [64, 32, 32, 3] x [3, 3, 3, 64] took 0.7 ms at best
// and 103 in the median, and takes 2.9 so (medians of 5, AMD EPYC with AVX512_BF16).

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <oneapi/dnnl/dnnl.hpp>

#include "xla/ffi/api/ffi.h"

#include "types.h"

namespace {

namespace ffi = xla::ffi;
using dnnl::memory;

using Geometry = std::vector<int64_t>;
using Type = memory::data_type;

enum Kind : int64_t { kForward = 0, kInputGradient = 1, kFilterGradient = 2 };
constexpr size_t kGeometrySize = 18;
constexpr size_t kAlignment = 64;
constexpr int64_t kWorthThreads = 1 << 22;  // Products of numbers.
constexpr int64_t kMostSums = 1 << 26;      // Numbers in filters of all threads.

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// An array as XLA has it.
struct Array {
  void* data;
  Type type;
};

// One of the three arrays of a primitive: as it lies, and as the primitive wants it.
struct Side {
  memory::desc plain, wanted;
  dnnl::primitive reorder;  // Empty where it lies as wanted.

  bool moved() const { return plain != wanted; }
};

struct Plan {
  dnnl::primitive conv;
  Side x, w, y;
  memory::desc scratch;
  std::string by;  // oneDNN's name of the implementation.
};

// What a plan is made for.
struct Key {
  int64_t kind;
  Geometry geometry;
  Type operands, result;
  bool alone;  // By one thread.

  bool operator<(const Key& other) const {
    return std::tie(kind, geometry, operands, result, alone) <
           std::tie(other.kind, other.geometry, other.operands, other.result,
                    other.alone);
  }
};

// `inside` is the type of the products.
std::unique_ptr<Plan> MakePlan(const Key& key, Type inside) {
  using Dims = memory::dims;
  using Tag = memory::format_tag;
  const Geometry& g = key.geometry;
  const auto direct = dnnl::algorithm::convolution_direct;
  const int64_t groups = g[17], inputs = g[3] / groups, outputs = g[6] / groups;
  const Dims x_dims{g[0], g[3], g[1], g[2]};
  Dims w_dims{outputs, inputs, g[4], g[5]};
  if (groups > 1) w_dims.insert(w_dims.begin(), groups);
  const Dims y_dims{g[0], g[6], g[7], g[8]};
  const Dims strides{g[9], g[10]}, dilation{g[11] - 1, g[12] - 1};
  const Dims low{g[13], g[15]}, high{g[14], g[16]};
  auto plan = std::make_unique<Plan>();
  // The result leaves the sums in its own type where the products are of bfloat16.
  const Type out = inside == Type::f32 ? inside : key.result;
  const bool of_x = key.kind == kInputGradient, of_y = key.kind == kForward;
  const bool of_w = !of_x && !of_y;
  plan->x.wanted = memory::desc(x_dims, of_x ? out : inside, Tag::nhwc);
  plan->y.wanted = memory::desc(y_dims, of_y ? out : inside, Tag::nhwc);
  const memory::desc any_w(w_dims, of_w ? Type::f32 : inside, Tag::any);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  // Of a gradient it is a hint, and of its types.
  const auto hint = [&](const Side& side, const Dims& dims) {
    return of_y ? side.wanted : memory::desc(dims, inside, Tag::nhwc);
  };
  const dnnl::convolution_forward::primitive_desc forward(
      Engine(), dnnl::prop_kind::forward_training, direct, hint(plan->x, x_dims),
      memory::desc(w_dims, inside, Tag::any), hint(plan->y, y_dims), strides, dilation,
      low, high, attributes);
  if (of_y) {
    plan->conv = dnnl::convolution_forward(forward);
    plan->w.wanted = forward.weights_desc();
    plan->scratch = forward.scratchpad_desc();
    plan->by = forward.impl_info_str();
  } else if (of_x) {
    const dnnl::convolution_backward_data::primitive_desc backward(
        Engine(), direct, plan->x.wanted, any_w, plan->y.wanted, strides, dilation, low,
        high, forward, attributes);
    plan->conv = dnnl::convolution_backward_data(backward);
    plan->w.wanted = backward.weights_desc();
    plan->scratch = backward.scratchpad_desc();
    plan->by = backward.impl_info_str();
  } else {
    const dnnl::convolution_backward_weights::primitive_desc backward(
        Engine(), direct, plan->x.wanted, any_w, plan->y.wanted, strides, dilation, low,
        high, forward, attributes);
    plan->conv = dnnl::convolution_backward_weights(backward);
    plan->w.wanted = backward.diff_weights_desc();
    plan->scratch = backward.scratchpad_desc();
    plan->by = backward.impl_info_str();
  }
  const auto lies = [&](Side& side, bool result, const Dims& dims, Tag tag) {
    side.plain = memory::desc(dims, result ? key.result : key.operands, tag);
    if (!side.moved()) return;
    side.reorder = dnnl::reorder(dnnl::reorder::primitive_desc(
        Engine(), result ? side.wanted : side.plain, Engine(),
        result ? side.plain : side.wanted));
  };
  lies(plan->x, of_x, x_dims, Tag::nhwc);
  lies(plan->y, of_y, y_dims, Tag::nhwc);
  lies(plan->w, of_w, w_dims, groups > 1 ? Tag::hwigo : Tag::hwio);
  return plan;
}

// The number of threads of what oneDNN makes here meanwhile.
class Threads {
 public:
  explicit Threads(int count) : before_(omp_get_max_threads()) {
    omp_set_num_threads(count);
  }
  ~Threads() { omp_set_num_threads(before_); }

 private:
  int before_;
};

std::unique_ptr<Plan> MakePlan(const Key& key) {
  const Threads threads(key.alone ? 1 : omp_get_max_threads());
  if (key.operands == Type::f32 || !HasBfloat16()) return MakePlan(key, Type::f32);
  auto plan = MakePlan(key, Type::bf16);
  // Of groups that are not of one channel each, oneDNN's bfloat16 is the slower one: 32
  // groups of 3 x 3, [8, 16, 16, 128], 0.53 and 0.30 ms, 7 x 7, [16, 32, 32, 40], 3.2
  // and 1.9.
  const bool grouped = key.kind == kFilterGradient && key.geometry[17] > 1;
  if (grouped && plan->by.find("dw") == std::string::npos) {
    return MakePlan(key, Type::f32);
  }
  return plan;
}

const Plan& PlanFor(const Key& key) {
  static std::mutex mutex;
  static auto* plans = new std::map<Key, std::unique_ptr<Plan>>();
  const std::lock_guard<std::mutex> guard(mutex);
  auto& plan = (*plans)[key];
  if (plan == nullptr) plan = MakePlan(key);
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

void Reorder(const Side& side, const dnnl::stream& stream, memory from, memory to) {
  side.reorder.execute(stream, {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
}

// The gradient of the filter as the primitive gives it goes to `raw`, if that is given.
void Execute(const Plan& plan, int64_t kind, void* x, void* w, void* y,
             void* raw = nullptr) {
  thread_local Scratch scratch, moved[3];
  dnnl::stream stream(Engine());
  const bool of_x = kind == kInputGradient, of_y = kind == kForward;
  const bool of_w = !of_x && !of_y;
  const auto given = [&](const Side& side, Scratch& space, void* data, bool result) {
    if (!side.moved()) return memory(side.wanted, Engine(), data);
    memory wanted(side.wanted, Engine(), space.Get(side.wanted.get_size()));
    if (!result) Reorder(side, stream, memory(side.plain, Engine(), data), wanted);
    return wanted;
  };
  memory mx = given(plan.x, moved[0], x, of_x), my = given(plan.y, moved[1], y, of_y);
  memory mw = raw ? memory(plan.w.wanted, Engine(), raw)
                  : given(plan.w, moved[2], w, of_w);
  memory ms(plan.scratch, Engine(), scratch.Get(plan.scratch.get_size()));
  plan.conv.execute(stream, {{of_x ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, mx},
                             {of_w ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, mw},
                             {of_y ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, my},
                             {DNNL_ARG_SCRATCHPAD, ms}});
  const auto back = [&](const Side& side, memory& from, void* data) {
    if (side.moved()) Reorder(side, stream, from, memory(side.plain, Engine(), data));
  };
  if (of_x) back(plan.x, mx, x);
  if (of_y) back(plan.y, my, y);
  if (of_w && !raw) back(plan.w, mw, w);
  stream.wait();
}

// Examples by threads, whose gradients are summed at the end. Returns whether it could:
// not where filters of parts would lie in different orders.
bool FilterGradientInParts(Key key, int64_t parts, Array x, Array w, Array dy) {
  thread_local Scratch sums;
  const int64_t rows = key.geometry[0], size = dnnl::memory::data_type_size(x.type);
  const auto example = [&](int n, int h, int w) {
    return key.geometry[n] * key.geometry[h] * key.geometry[w] * size;
  };
  const int64_t of_x = example(1, 2, 3), of_y = example(7, 8, 6);
  std::vector<const Plan*> plans(parts);
  for (int64_t k = 0; k < parts; ++k) {
    key.geometry[0] = rows * (k + 1) / parts - rows * k / parts;
    plans[k] = &PlanFor(key);
  }
  const Side& filter = plans[0]->w;
  for (const Plan* plan : plans) {
    if (plan->w.wanted != filter.wanted) return false;
  }
  const int64_t floats = filter.wanted.get_size() / sizeof(float);
  auto* all = static_cast<float*>(sums.Get(parts * floats * sizeof(float)));
  std::atomic<bool> failed(false);
#pragma omp parallel for num_threads(parts) schedule(static)
  for (int64_t k = 0; k < parts; ++k) {
    const int64_t first = rows * k / parts;
    try {
      Execute(*plans[k], key.kind, static_cast<char*>(x.data) + first * of_x, nullptr,
              static_cast<char*>(dy.data) + first * of_y, all + k * floats);
    } catch (const std::exception&) {  // None may leave a parallel region.
      failed = true;
    }
  }
  if (failed) throw dnnl::error(dnnl_runtime_error, "a part of a filter gradient");
#pragma omp parallel for simd num_threads(parts) schedule(static)
  for (int64_t i = 0; i < floats; ++i) {
    for (int64_t k = 1; k < parts; ++k) all[i] += all[k * floats + i];
  }
  dnnl::stream stream(Engine());
  memory from(filter.wanted, Engine(), all), to(filter.plain, Engine(), w.data);
  if (filter.moved()) {
    Reorder(filter, stream, from, to);
  } else {
    std::copy(all, all + floats, static_cast<float*>(w.data));
  }
  stream.wait();
  return true;
}

void Run(int64_t kind, const Geometry& g, Array x, Array w, Array y) {
  Key key{kind, g, kind == kInputGradient ? y.type : x.type, Type::undef, false};
  key.result = (kind == kForward ? y : kind == kInputGradient ? x : w).type;
  if (kind == kFilterGradient && key.operands == Type::bf16) {
    const int64_t work = g[0] * g[7] * g[8] * g[4] * g[5] * g[3] / g[17] * g[6];
    const int64_t threads = omp_get_max_threads();
    const int64_t parts = std::min(threads, g[0]);
    const int64_t sums = parts * g[4] * g[5] * g[3] / g[17] * g[6];
    key.alone = true;
    if (work >= kWorthThreads) {
      const bool apart = parts > 1 && sums <= kMostSums;
      if (apart && FilterGradientInParts(key, parts, x, w, y)) return;
      key.alone = false;
    }
  }
  Execute(PlanFor(key), kind, x.data, w.data, y.data);
}

Array Given(const ffi::AnyBuffer& x) { return {x.untyped_data(), TypeOf(x)}; }

ffi::Error Convolve(ffi::Span<const int64_t> geometry, int64_t kind, ffi::AnyBuffer a,
                    ffi::AnyBuffer b, ffi::Result<ffi::AnyBuffer> out) {
  if (geometry.size() != kGeometrySize) {
    return ffi::Error::InvalidArgument("geometry has 18 numbers");
  }
  const Geometry key(geometry.begin(), geometry.end());
  const Array first = Given(a), second = Given(b), result = Given(*out);
  if (first.type == Type::undef || second.type != first.type ||
      (result.type != Type::f32 && result.type != first.type)) {
    return ffi::Error::InvalidArgument("a convolution of arrays of other types");
  }
  try {
    if (kind == kForward) {
      Run(kind, key, first, second, result);
    } else if (kind == kInputGradient) {
      Run(kind, key, result, second, first);
    } else {
      Run(kind, key, first, result, second);
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
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());
