// Products of matrices by oneDNN as XLA FFI calls: float32 or bfloat16, summed in
// float32.
//
// a [*batch, M, K], b [*batch, K, N] -> out [*batch, M, N]; transposed, a lies as
// [K, M] and b as [N, K]. An axis of `batch` may be 1 in a or b: the same matrix for
// all. a and b are of one type; out is of theirs or float32.
//
// A product is cut into blocks of the result by its sizes and the number of threads, and
// XLA's own threads take one after the other: one that comes late, as on a busy machine,
// is not waited for, and who computes what changes no bit. A primitive of one thread is
// made once for each shape of a block and kept for the life of the process.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include <omp.h>
#include <oneapi/dnnl/dnnl.hpp>

#include "xla/ffi/api/ffi.h"

#include "bindings.h"
#include "types.h"

namespace {

namespace ffi = xla::ffi;
using dnnl::memory;
using Dims = ffi::Span<const int64_t>;

constexpr size_t kAlignment = 64;
// Multiply-adds that are worth a block, some 70 microseconds of one core. Each block
// copies its rows of a or columns of b into oneDNN's order: GFLOP/s of one core for a
// float32 product of 2048^3 in squares of 64, 128, 256, 512 and as a whole: 143, 190, 220,
// 230, 219; of bfloat16 262, 385, 422, 464, 434 (AMD EPYC, 2026-12-01).
constexpr double kBlock = 1 << 23, kBlocksOfThread = 4;
constexpr int64_t kLeastRows = 64, kLeastColumns = 64;  // Of a block that is cut.

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// A matrix as it is multiplied: distances between elements down and across, and from one
// matrix of a batch to the next, 0 where all are the same.
struct Matrix {
  char* data;
  int64_t down, across, next;
  memory::data_type type;

  char* At(int64_t member, int64_t row, int64_t column) const {
    const int64_t size = memory::data_type_size(type);
    return data + (member * next + row * down + column * across) * size;
  }

  memory::desc Describe(int64_t count, int64_t rows, int64_t columns) const {
    if (count == 1) return memory::desc({rows, columns}, type, {down, across});
    const int64_t own = next == 0 ? 1 : count;
    return memory::desc({own, rows, columns}, type,
                        {next == 0 ? rows * columns : next, down, across});
  }
};

struct Block {
  int64_t member, count, row, rows, column, columns;
};

struct Plan {
  dnnl::matmul matmul;
  memory::desc a, b, out, scratch;
};

struct Product {
  Matrix a, b, out;
  int64_t inner;

  const Plan& PlanFor(const Block& block) const {
    static std::mutex mutex;
    static auto* plans = new std::map<std::vector<int64_t>, std::unique_ptr<Plan>>();
    const std::vector<int64_t> key{
        block.count, block.rows, block.columns, inner,    a.down,
        a.across,    a.next,     b.down,        b.across, b.next,
        out.down,    out.next,   static_cast<int64_t>(a.type),
        static_cast<int64_t>(out.type)};
    const std::lock_guard<std::mutex> guard(mutex);
    auto& plan = (*plans)[key];
    if (plan == nullptr) plan = MakePlan(block);
    return *plan;
  }

  std::unique_ptr<Plan> MakePlan(const Block& block) const {
    auto plan = std::make_unique<Plan>();
    plan->a = a.Describe(block.count, block.rows, inner);
    plan->b = b.Describe(block.count, inner, block.columns);
    plan->out = out.Describe(block.count, block.rows, block.columns);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const dnnl::matmul::primitive_desc made(Engine(), plan->a, plan->b, plan->out,
                                            attributes);
    plan->matmul = dnnl::matmul(made);
    plan->scratch = made.scratchpad_desc();
    return plan;
  }

  void Compute(const Block& block) const;
};

// Memory of one thread that grows to what the largest block wants.
void* Scratch(size_t size) {
  thread_local std::vector<char> bytes;
  if (bytes.size() < size + kAlignment) bytes.resize(size + kAlignment);
  const auto address = reinterpret_cast<uintptr_t>(bytes.data());
  return reinterpret_cast<void*>((address + kAlignment - 1) & ~(kAlignment - 1));
}

// While it lives, oneDNN sees one thread in this one.
class Alone {
 public:
  Alone() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~Alone() { omp_set_num_threads(before_); }

 private:
  const int before_;
};

void Product::Compute(const Block& block) const {
  const Alone alone;
  const Plan& plan = PlanFor(block);
  dnnl::stream stream(Engine());
  const auto of = [](const memory::desc& as, char* at) {
    return memory(as, Engine(), at);
  };
  memory scratch(plan.scratch, Engine(), Scratch(plan.scratch.get_size()));
  plan.matmul.execute(
      stream, {{DNNL_ARG_SRC, of(plan.a, a.At(block.member, block.row, 0))},
               {DNNL_ARG_WEIGHTS, of(plan.b, b.At(block.member, 0, block.column))},
               {DNNL_ARG_DST, of(plan.out, out.At(block.member, block.row, block.column))},
               {DNNL_ARG_SCRATCHPAD, scratch}});
  stream.wait();
}

int64_t Parts(int64_t size, int64_t each) { return (size + each - 1) / each; }

// Of `count` products of these sizes.
std::vector<Block> Cut(int64_t count, int64_t rows, int64_t inner, int64_t columns,
                       int64_t threads) {
  // In floating point, where no product of sizes is too large.
  const double work = static_cast<double>(count) * rows * inner * columns;
  const double wanted = std::min(work / kBlock, kBlocksOfThread * threads);
  int64_t members = 1, height = rows, width = columns;
  if (count >= wanted) {
    members = std::max<int64_t>(count / std::max(wanted, 1.0), 1);
  } else {
    while (count * Parts(rows, height) * Parts(columns, width) < wanted) {
      const bool lower = height >= 2 * kLeastRows, less = width >= 2 * kLeastColumns;
      if (!lower && !less) break;
      if (lower && (height >= width || !less)) {
        height = Parts(Parts(height, 2), 16) * 16;
      } else {
        width = Parts(Parts(width, 2), 64) * 64;
      }
    }
  }
  std::vector<Block> blocks;
  for (int64_t m = 0; m < count; m += members) {
    for (int64_t r = 0; r < rows; r += height) {
      for (int64_t c = 0; c < columns; c += width) {
        blocks.push_back({m, std::min(members, count - m), r, std::min(height, rows - r),
                          c, std::min(width, columns - c)});
      }
    }
  }
  return blocks;
}

// The blocks that are left, for the thread of the call and those that come to help. One
// that comes after the last block was taken finds none, whether the call still runs or
// not.
class Queue {
 public:
  Queue(const Product& product, std::vector<Block> blocks)
      : product_(product), blocks_(std::move(blocks)), left_(blocks_.size()) {}

  void Work() {
    for (size_t i; (i = next_.fetch_add(1)) < blocks_.size();) {
      try {
        product_.Compute(blocks_[i]);
      } catch (const std::exception&) {  // None may leave a thread of XLA.
        failed_ = true;
      }
      if (left_.fetch_sub(1) == 1) {
        const std::lock_guard<std::mutex> guard(mutex_);
        done_.notify_one();
      }
    }
  }

  // Whether every block was computed.
  bool Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return left_ == 0; });
    return !failed_;
  }

 private:
  const Product product_;
  const std::vector<Block> blocks_;
  std::atomic<size_t> next_{0}, left_;
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::condition_variable done_;
};

bool Run(ffi::ThreadPool& threads, const Product& product, std::vector<Block> blocks) {
  const int64_t count = blocks.size();
  const auto queue = std::make_shared<Queue>(product, std::move(blocks));
  const int64_t helpers = std::min<int64_t>(threads.num_threads(), count) - 1;
  for (int64_t i = 0; i < helpers; ++i) threads.Schedule([queue] { queue->Work(); });
  queue->Work();
  return queue->Wait();
}

int64_t Count(Dims batch) {
  int64_t count = 1;
  for (const int64_t size : batch) count *= size;
  return count;
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

Matrix MatrixOf(ffi::AnyBuffer x, int64_t rows, int64_t columns, bool transposed,
                int64_t count) {
  return {static_cast<char*>(x.untyped_data()), transposed ? 1 : columns,
          transposed ? rows : 1, count == 1 ? 0 : rows * columns, TypeOf(x)};
}

ffi::Error Multiply(bool transpose_a, bool transpose_b, ffi::ThreadPool threads,
                    ffi::AnyBuffer a, ffi::AnyBuffer b, ffi::Result<ffi::AnyBuffer> out) {
  const Dims da = a.dimensions(), db = b.dimensions(), dy = out->dimensions();
  const size_t rank = dy.size();
  if (rank < 2 || da.size() != rank || db.size() != rank) {
    return ffi::Error::InvalidArgument("a product of arrays of other ranks");
  }
  const int64_t rows = dy[rank - 2], columns = dy[rank - 1];
  const int64_t inner = da[transpose_a ? rank - 2 : rank - 1];
  const Dims batch_a = da.first(rank - 2), batch_b = db.first(rank - 2);
  const Dims batch = dy.first(rank - 2);
  if (da[transpose_a ? rank - 1 : rank - 2] != rows ||
      db[transpose_b ? rank - 1 : rank - 2] != inner ||
      db[transpose_b ? rank - 2 : rank - 1] != columns || !Fits(batch_a, batch) ||
      !Fits(batch_b, batch)) {
    return ffi::Error::InvalidArgument("a product of arrays of other sizes");
  }
  const auto f32 = memory::data_type::f32, undef = memory::data_type::undef;
  const auto in = TypeOf(a);
  if (in == undef || TypeOf(b) != in || (TypeOf(*out) != in && TypeOf(*out) != f32)) {
    return ffi::Error::InvalidArgument("a product of arrays of other types");
  }
  if (out->element_count() == 0) return ffi::Error::Success();
  if (inner == 0) {
    std::memset(out->untyped_data(), 0, out->size_bytes());
    return ffi::Error::Success();
  }
  const int64_t count = Count(batch), count_a = Count(batch_a), count_b = Count(batch_b);
  Product product{MatrixOf(a, rows, inner, transpose_a, count_a),
                  MatrixOf(b, inner, columns, transpose_b, count_b),
                  MatrixOf(*out, rows, columns, false, count), inner};
  const bool at_once =
      (count_a == count || count_a == 1) && (count_b == count || count_b == 1);
  bool done = true;
  try {
    if (at_once) {
      done = Run(threads, product, Cut(count, rows, inner, columns, threads.num_threads()));
    } else {
      for (int64_t i = 0; i < count; ++i) {
        Product one = product;
        one.a.data = product.a.At(Member(i, batch_a, batch), 0, 0);
        one.b.data = product.b.At(Member(i, batch_b, batch), 0, 0);
        one.out.data = product.out.At(i, 0, 0);
        done &= Run(threads, one, Cut(1, rows, inner, columns, threads.num_threads()));
      }
    }
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
  return done ? ffi::Error::Success() : ffi::Error::Internal("oneDNN failed in a product");
}

// Two arrays and a result come after them.
auto Given() {
  return ffi::Ffi::Bind()
      .Attr<bool>("transpose_a")
      .Attr<bool>("transpose_b")
      .Ctx<ffi::ThreadPool>();
}

auto Operands() { return Arguments<2, ffi::AnyBuffer>(Given()); }

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(DlxOneDnnProduct, Multiply,
                              Operands().Ret<ffi::AnyBuffer>());
