// Products of matrices by oneDNN as XLA FFI calls: float32 or bfloat16, summed in
// float32.
//
// a [*batch, M, K], b [*batch, K, N] -> out [*batch, M, N]; transposed, a lies as
// [K, M] and b as [N, K]. An axis of `batch` may be 1 in a or b: the same matrix for
// all. a and b are of one type; out is of theirs or float32.
//
// A primitive is made once for each shape and kept for the life of the process. Operands
// lie as XLA has them: packing b before each product gained nothing (README.md).

#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <vector>

#include <oneapi/dnnl/dnnl.hpp>

#include "xla/ffi/api/ffi.h"

#include "bindings.h"
#include "types.h"

namespace {

namespace ffi = xla::ffi;
using dnnl::memory;
using Dims = ffi::Span<const int64_t>;

constexpr size_t kAlignment = 64;

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// What one primitive computes: `count` products, of one a or b where theirs is 1.
struct Shape {
  int64_t rows, inner, columns, count, count_a, count_b;
  bool transpose_a, transpose_b;
  memory::data_type in, out;

  std::vector<int64_t> Key() const {
    return {rows,        inner,       columns,
            count,       count_a,     count_b,
            transpose_a, transpose_b, static_cast<int64_t>(in),
            static_cast<int64_t>(out)};
  }
};

struct Plan {
  dnnl::matmul matmul;
  memory::desc a, b, out, scratch;
};

memory::desc Describe(int64_t count, int64_t rows, int64_t columns, bool transposed,
                      memory::data_type type) {
  const int64_t down = transposed ? 1 : columns, across = transposed ? rows : 1;
  return memory::desc({count, rows, columns}, type, {rows * columns, down, across});
}

std::unique_ptr<Plan> MakePlan(const Shape& s) {
  using Tag = memory::format_tag;
  auto plan = std::make_unique<Plan>();
  if (s.count == 1) {
    plan->a = memory::desc({s.rows, s.inner}, s.in, s.transpose_a ? Tag::ba : Tag::ab);
    plan->b =
        memory::desc({s.inner, s.columns}, s.in, s.transpose_b ? Tag::ba : Tag::ab);
    plan->out = memory::desc({s.rows, s.columns}, s.out, Tag::ab);
  } else {
    plan->a = Describe(s.count_a, s.rows, s.inner, s.transpose_a, s.in);
    plan->b = Describe(s.count_b, s.inner, s.columns, s.transpose_b, s.in);
    plan->out = Describe(s.count, s.rows, s.columns, false, s.out);
  }
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const dnnl::matmul::primitive_desc made(Engine(), plan->a, plan->b, plan->out,
                                          attributes);
  plan->matmul = dnnl::matmul(made);
  plan->scratch = made.scratchpad_desc();
  return plan;
}

const Plan& PlanFor(const Shape& shape) {
  static std::mutex mutex;
  static auto* plans = new std::map<std::vector<int64_t>, std::unique_ptr<Plan>>();
  const std::lock_guard<std::mutex> guard(mutex);
  auto& plan = (*plans)[shape.Key()];
  if (plan == nullptr) plan = MakePlan(shape);
  return *plan;
}

// Memory of one thread that grows to what the largest call wants.
void* Scratch(size_t size) {
  thread_local std::vector<char> bytes;
  if (bytes.size() < size + kAlignment) bytes.resize(size + kAlignment);
  const auto address = reinterpret_cast<uintptr_t>(bytes.data());
  return reinterpret_cast<void*>((address + kAlignment - 1) & ~(kAlignment - 1));
}

void Execute(const Shape& shape, void* a, void* b, void* out) {
  const Plan& plan = PlanFor(shape);
  dnnl::stream stream(Engine());
  memory scratch(plan.scratch, Engine(), Scratch(plan.scratch.get_size()));
  plan.matmul.execute(stream, {{DNNL_ARG_SRC, memory(plan.a, Engine(), a)},
                               {DNNL_ARG_WEIGHTS, memory(plan.b, Engine(), b)},
                               {DNNL_ARG_DST, memory(plan.out, Engine(), out)},
                               {DNNL_ARG_SCRATCHPAD, scratch}});
  stream.wait();
}

int64_t Count(Dims batch) {
  return std::accumulate(batch.begin(), batch.end(), int64_t{1},
                         std::multiplies<int64_t>());
}

bool Fits(Dims of, Dims batch) {
  for (size_t d = 0; d < batch.size(); ++d) {
    if (of[d] != batch[d] && of[d] != 1) return false;
  }
  return true;
}

// Which matrix of an operand the one numbered `index` of `batch` is made of.
int64_t Member(int64_t index, Dims of, Dims batch) {
  int64_t member = 0, step = 1;
  for (size_t d = batch.size(); d-- > 0;) {
    if (of[d] != 1) member += index % batch[d] * step;
    step *= of[d];
    index /= batch[d];
  }
  return member;
}

char* Bytes(ffi::AnyBuffer x) { return static_cast<char*>(x.untyped_data()); }

ffi::Error Product(bool transpose_a, bool transpose_b, ffi::AnyBuffer a,
                   ffi::AnyBuffer b, ffi::Result<ffi::AnyBuffer> out) {
  const Dims da = a.dimensions(), db = b.dimensions(), dy = out->dimensions();
  const size_t rank = dy.size();
  if (rank < 2 || da.size() != rank || db.size() != rank) {
    return ffi::Error::InvalidArgument("a product of arrays of other ranks");
  }
  Shape s;
  s.transpose_a = transpose_a;
  s.transpose_b = transpose_b;
  s.in = TypeOf(a);
  s.out = TypeOf(*out);
  s.rows = dy[rank - 2];
  s.columns = dy[rank - 1];
  s.inner = da[transpose_a ? rank - 2 : rank - 1];
  const Dims batch_a = da.first(rank - 2), batch_b = db.first(rank - 2);
  const Dims batch = dy.first(rank - 2);
  if (da[transpose_a ? rank - 1 : rank - 2] != s.rows ||
      db[transpose_b ? rank - 1 : rank - 2] != s.inner ||
      db[transpose_b ? rank - 2 : rank - 1] != s.columns || !Fits(batch_a, batch) ||
      !Fits(batch_b, batch)) {
    return ffi::Error::InvalidArgument("a product of arrays of other sizes");
  }
  const auto f32 = memory::data_type::f32, undef = memory::data_type::undef;
  if (s.in == undef || TypeOf(b) != s.in || (s.out != s.in && s.out != f32)) {
    return ffi::Error::InvalidArgument("a product of arrays of other types");
  }
  if (out->element_count() == 0) return ffi::Error::Success();
  if (s.inner == 0) {
    std::memset(out->untyped_data(), 0, out->size_bytes());
    return ffi::Error::Success();
  }
  const int64_t count = Count(batch), count_a = Count(batch_a), count_b = Count(batch_b);
  const bool at_once = (count_a == count || count_a == 1) &&
                       (count_b == count || count_b == 1);
  s.count = at_once ? count : 1;
  s.count_a = at_once ? count_a : 1;
  s.count_b = at_once ? count_b : 1;
  try {
    if (at_once) {
      Execute(s, a.untyped_data(), b.untyped_data(), out->untyped_data());
      return ffi::Error::Success();
    }
    const int64_t size_a = a.size_bytes() / count_a, size_b = b.size_bytes() / count_b;
    const int64_t size = out->size_bytes() / count;
    for (int64_t i = 0; i < count; ++i) {
      Execute(s, Bytes(a) + Member(i, batch_a, batch) * size_a,
              Bytes(b) + Member(i, batch_b, batch) * size_b, Bytes(*out) + i * size);
    }
  } catch (const dnnl::error& error) {
    return ffi::Error::Internal(error.what());
  }
  return ffi::Error::Success();
}

// Two arrays and a result come after them.
auto Attributes() {
  return ffi::Ffi::Bind().Attr<bool>("transpose_a").Attr<bool>("transpose_b");
}

auto Operands() { return Arguments<2, ffi::AnyBuffer>(Attributes()); }

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(DlxOneDnnProduct, Product, Operands().Ret<ffi::AnyBuffer>());
