// What an engine's steps spend their time on, on CPUs: products of a few rows with large matrices, and attention over a
// cache. Each sum is taken in one order, by one chain of multiply-adds, so a row's bits depend on that row alone: not on
// how many rows there are, where it stands, or how many threads there are. XLA's own products don't keep that
// (kernels/attention/rows.py), and pack the matrix anew, or read it slowly, for the few rows that a step has.
//
// Arrays are dense, their last axis first in memory. Letters as in model/decoding.py: B rows with S new tokens each, R
// rows of the cache with T slots, H heads and K of keys, D numbers a head.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <type_traits>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif
constexpr int kPanel = 32;    // columns of a matrix that lie together (product.py)
constexpr int kTile = 16;     // keys, or numbers of a value, that attention takes at once
constexpr int64_t kDepth = 256;  // rows of a panel that stay in the first cache meanwhile
constexpr int64_t kRows = 126;   // rows of which as much stays in the second one
constexpr int kMost = 6;      // rows whose sums fit into the registers
constexpr int kQueries = 48;  // queries that share a reading of the keys

typedef float Vector __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef uint32_t Bits __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));
typedef int8_t Bytes __attribute__((vector_size(kLanes), aligned(1), may_alias));
typedef float Tile __attribute__((vector_size(4 * kTile), aligned(4), may_alias));
typedef int32_t TileBits __attribute__((vector_size(4 * kTile)));

// ---------------------------------------------------------------------------------------------- numbers in memory

struct BFloat16 {
  uint16_t bits;
};

inline float number(const float* at) { return *at; }
inline float number(const BFloat16* at) {
  uint32_t bits = uint32_t{at->bits} << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline Vector vector(const float* at) { return *reinterpret_cast<const Vector*>(at); }
inline Vector vector(const int8_t* at) {
  return __builtin_convertvector(*reinterpret_cast<const Bytes*>(at), Vector);
}
inline Vector vector(const BFloat16* at) {
  return (Vector)(__builtin_convertvector(*reinterpret_cast<const Halves*>(at), Bits) << 16);
}

inline void put(float value, float* at) { *at = value; }
inline void put(float value, BFloat16* at) {  // to the nearest, ties to even; what comes here is finite
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  at->bits = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// ------------------------------------------------------------------------------------------------------- products

// Adds to out[r][0 .. C * kLanes) the sums over k of rows[r][k] * columns[k * stride ...], or sets them.
template <int R, int C, typename Number>
[[gnu::noinline]] void multiply(const float* const* rows, const Number* columns, int64_t depth, int64_t stride, float* const* out,
              bool add) {
  Vector sums[R][C];
  const float* row[R];
  for (int r = 0; r < R; ++r) {
    row[r] = rows[r];
    for (int c = 0; c < C; ++c) sums[r][c] = add ? vector(out[r] + c * kLanes) : Vector{};
  }
  for (int64_t k = 0; k < depth; ++k, columns += stride) {
    if constexpr (R > 3) {  // with fewer rows there's nothing else to do than to wait for the matrix
      for (int c = 0; c < C; c += 64 / (4 * kLanes)) __builtin_prefetch(columns + kDepth * stride + c * kLanes);
    }
    Vector column[C];
    for (int c = 0; c < C; ++c) column[c] = vector(columns + c * kLanes);
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < C; ++c) sums[r][c] += row[r][k] * column[c];
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c) *reinterpret_cast<Vector*>(out[r] + c * kLanes) = sums[r][c];
  }
}

// The same of 1 to kMost rows.
template <int C, typename... Rest>
void multiply_some(int64_t count, Rest... rest) {
  switch (count) {
    case 1: return multiply<1, C>(rest...);
    case 2: return multiply<2, C>(rest...);
    case 3: return multiply<3, C>(rest...);
    case 4: return multiply<4, C>(rest...);
    case 5: return multiply<5, C>(rest...);
    default: return multiply<6, C>(rest...);
  }
}

// Numbers [k, k + depth) of some rows times those of one panel of 32 columns, added to out[row][0 .. 32) if k > 0.
template <typename Number>
void multiply_panel(const float* const* rows, int64_t count, const Number* panel, int64_t k, int64_t depth,
                    float* const* out) {
  constexpr int kAll = kPanel / kLanes, kSome = std::min(2, kAll);
  for (int64_t first = 0; first < count;) {
    // As even parts as can be: of seven rows three and four, not six and one.
    const int64_t parts = (count - first + kMost - 1) / kMost, part = (count - first + parts - 1) / parts;
    const float* row[kMost];
    float* to[kMost];
    for (int64_t r = 0; r < part; ++r) row[r] = rows[first + r] + k, to[r] = out[first + r];
    if (part <= 3) {
      multiply_some<kAll>(part, row, panel + k * kPanel, depth, int64_t{kPanel}, to, k > 0);
    } else {
      for (int c = 0; c < kPanel; c += kSome * kLanes) {
        multiply_some<kSome>(part, row, panel + k * kPanel + c, depth, int64_t{kPanel}, to, k > 0);
        for (int64_t r = 0; r < part; ++r) to[r] += kSome * kLanes;
      }
    }
    first += part;
  }
}

// Runs task(0) to task(count - 1) on the threads of a pool and on this one. Whatever no other thread has begun, this one
// does: so nobody waits for a thread that waits, too.
void in_parallel(ffi::ThreadPool& pool, int64_t count, std::function<void(int64_t)> task) {
  struct Work {
    std::function<void(int64_t)> task;
    int64_t count;
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable all_done;
    void help() {
      for (int64_t index; (index = next.fetch_add(1)) < count;) {
        task(index);
        if (done.fetch_add(1) + 1 == count) {
          std::lock_guard<std::mutex> lock(mutex);
          all_done.notify_all();
        }
      }
    }
  };
  auto work = std::make_shared<Work>();
  work->task = std::move(task);
  work->count = count;
  const int64_t threads = std::min(count, pool.num_threads());
  for (int64_t thread = 1; thread < threads; ++thread) pool.Schedule([work] { work->help(); });
  work->help();
  // Mostly the others are about to be ready, and to be woken takes longer than a task.
  for (int spin = 0; spin < 2000 && work->done.load() < count; ++spin) continue;
  std::unique_lock<std::mutex> lock(work->mutex);
  work->all_done.wait(lock, [&] { return work->done.load() == count; });
}

template <typename Number>
void product_of(ffi::ThreadPool& pool, const float* x, int64_t depth, const Number* panels, const bool* keep,
                int64_t count, float* out, int64_t width) {
  std::vector<int64_t> kept;
  for (int64_t row = 0; row < count; ++row) {
    if (keep[row]) {
      kept.push_back(row);
    } else {
      std::memset(out + row * width, 0, width * sizeof(float));
    }
  }
  if (kept.empty()) return;
  std::vector<const float*> rows;
  for (int64_t row : kept) rows.push_back(x + row * depth);
  const int64_t number = (width + kPanel - 1) / kPanel, last_columns = width - (number - 1) * kPanel;
  std::vector<float> edge(last_columns < kPanel ? rows.size() * kPanel : 0);  // the last panel's, with its zeros
  auto multiply_panels = [&](int64_t begin, int64_t end) {
    std::vector<float*> to(kRows * (end - begin));
    for (size_t first = 0; first < rows.size(); first += kRows) {
      const int64_t some = std::min(kRows, static_cast<int64_t>(rows.size() - first));
      for (int64_t panel = begin; panel < end; ++panel) {
        const bool is_edge = panel == number - 1 && !edge.empty();
        for (int64_t r = 0; r < some; ++r) {
          to[(panel - begin) * kRows + r] =
              is_edge ? edge.data() + (first + r) * kPanel : out + kept[first + r] * width + panel * kPanel;
        }
      }
      for (int64_t k = 0; k < depth; k += kDepth) {
        for (int64_t panel = begin; panel < end; ++panel) {
          multiply_panel(rows.data() + first, some, panels + panel * depth * kPanel, k, std::min(kDepth, depth - k),
                         to.data() + (panel - begin) * kRows);
        }
      }
    }
  };
  // Several tasks a thread, so that one that is held up doesn't hold up all; each of some panels. What many rows read
  // of the rows, they read for four panels.
  const int64_t tasks = std::min(number, 4 * std::max<int64_t>(1, pool.num_threads()));
  const int64_t together = static_cast<int64_t>(rows.size()) > kRows ? 4 : 1;
  in_parallel(pool, tasks, [&](int64_t task) {
    const int64_t end = (task + 1) * number / tasks;
    for (int64_t panel = task * number / tasks; panel < end; panel += together) {
      multiply_panels(panel, std::min(end, panel + together));
    }
  });
  for (size_t r = 0; !edge.empty() && r < rows.size(); ++r) {
    std::memcpy(out + kept[r] * width + (number - 1) * kPanel, edge.data() + r * kPanel, last_columns * sizeof(float));
  }
}

// out [M, N] = x [M, K] @ matrix [K, N] in those rows that are kept; 0 in the others. The matrix lies in panels of 32
// columns, [N / 32, K, 32], with zeros behind its last column.
ffi::Error Product(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::AnyBuffer panels, ffi::Buffer<ffi::PRED> keep,
                   ffi::ResultBuffer<ffi::F32> out) {
  const int64_t count = x.dimensions()[0], depth = x.dimensions()[1], width = out->dimensions()[1];
  auto run = [&](auto* numbers) {
    product_of(pool, x.typed_data(), depth, numbers, keep.typed_data(), count, out->typed_data(), width);
    return ffi::Error::Success();
  };
  switch (panels.element_type()) {
    case ffi::F32: return run(reinterpret_cast<const float*>(panels.untyped_data()));
    case ffi::BF16: return run(reinterpret_cast<const BFloat16*>(panels.untyped_data()));
    case ffi::S8: return run(reinterpret_cast<const int8_t*>(panels.untyped_data()));
    default: return ffi::Error::InvalidArgument("weights of another dtype");
  }
}

// ------------------------------------------------------------------------------------------------------ attention

// e^x of numbers up to 0, within two units of the last place; 0 where it is below 2^-125.
inline Tile exponential(Tile x) {
  const Tile magic = Tile{} + 12582912.0f;  // whose last bit is worth 1
  Tile whole = (x * 1.44269504088896341f + magic) - magic;
  Tile rest = x - whole * 0.693359375f;
  rest -= whole * -2.12194440e-4f;
  Tile series = Tile{} + 1.9875691500e-4f;
  series = series * rest + 1.3981999507e-3f;
  series = series * rest + 8.3334519073e-3f;
  series = series * rest + 4.1665795894e-2f;
  series = series * rest + 1.6666665459e-1f;
  series = series * rest + 5.0000001201e-1f;
  series = series * rest * rest + rest + 1.0f;
  TileBits power = (__builtin_convertvector(whole, TileBits) + 127) << 23;
  return x < -86.0f ? Tile{} : series * (Tile)power;
}

// What one row of a key head's queries weigh their values by: scores [0, visible) become e^(score - highest), those up
// to `slots`, a multiple of 16, 0. Returns their sum.
float weigh(float* scores, int64_t visible, int64_t slots) {
  float highest = scores[0];
  for (int64_t slot = 1; slot < visible; ++slot) highest = std::max(highest, scores[slot]);
  for (int64_t slot = visible; slot < slots; ++slot) scores[slot] = -std::numeric_limits<float>::infinity();
  Tile sums{};
  for (int64_t slot = 0; slot < slots; slot += kTile) {
    Tile* at = reinterpret_cast<Tile*>(scores + slot);
    *at = exponential(*at - highest);
    sums += *at;
  }
  float sum = 0;
  for (int lane = 0; lane < kTile; ++lane) sum += sums[lane];
  return sum;
}

// Multiplies many rows by one tile of 16 columns; row r lies at rows + r * row_stride, its sums at out + r * out_stride.
template <typename Number>
void multiply_tile(const float* rows, int64_t row_stride, int64_t count, const Number* columns, int64_t depth,
                   int64_t stride, float* out, int64_t out_stride) {
  for (int64_t first = 0; first < count; first += kMost) {
    const float* row[kMost];
    float* to[kMost];
    const int64_t part = std::min<int64_t>(kMost, count - first);
    for (int64_t r = 0; r < part; ++r) row[r] = rows + (first + r) * row_stride, to[r] = out + (first + r) * out_stride;
    multiply_some<kTile / kLanes>(part, row, columns, depth, stride, to, false);
  }
}

struct Sizes {
  int64_t rows, length, heads, size, kv_heads, slots;  // B, S, H, D, K, T
};

// Tokens [begin, end) of one row and key head; `before` tokens of the row come before the first of all S.
template <typename Number>
void attend(const Sizes& is, const Number* q, const Number* keys, const Number* values, int64_t before, int64_t begin,
            int64_t end, int64_t kv_head, Number* out) {
  const int64_t size = is.size, group = is.heads / is.kv_heads, count = (end - begin) * group;
  const int64_t visible = std::min(before + end, is.slots), slots = (visible + kTile - 1) / kTile * kTile;
  std::vector<float> queries(count * size), scores(count * slots), mixed(count * size), turned(size * kTile);
  auto head = [&](int64_t row) {  // where the numbers of a query, or of what it gets, begin
    return ((begin + row / group) * is.heads + kv_head * group + row % group) * size;
  };
  const float scale = 1 / __builtin_sqrtf(static_cast<float>(size));
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t d = 0; d < size; ++d) queries[row * size + d] = number(q + head(row) + d) * scale;
  }
  for (int64_t first = 0; first < slots; first += kTile) {
    for (int64_t slot = 0; slot < kTile; ++slot) {
      const Number* key = keys + std::min(first + slot, visible - 1) * size;
      for (int64_t d = 0; d < size; ++d) turned[d * kTile + slot] = number(key + d);
    }
    multiply_tile(queries.data(), size, count, turned.data(), size, kTile, scores.data() + first, slots);
  }
  std::vector<float> sums(count);
  for (int64_t row = 0; row < count; ++row) {
    sums[row] = weigh(scores.data() + row * slots, std::min(before + begin + row / group + 1, is.slots), slots);
  }
  for (int64_t d = 0; d < size; d += kTile) {
    multiply_tile(scores.data(), slots, count, values + d, visible, size, mixed.data() + d, size);
  }
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t d = 0; d < size; ++d) put(mixed[row * size + d] / sums[row], out + head(row) + d);
  }
}

template <typename Number>
void attention_of(ffi::ThreadPool& pool, const Sizes& is, const Number* q, const Number* k, const Number* v,
                  const int32_t* before, const int32_t* count, int64_t of_row, Number* out, Number* keys,
                  Number* values) {
  struct Task {
    int64_t row, kv_head, begin, end;
  };
  std::vector<Task> tasks;
  const int64_t at_once = std::max<int64_t>(1, kQueries * is.kv_heads / is.heads), token = is.heads * is.size;
  const int64_t head = is.slots * is.size;  // numbers of one head in the cache
  for (int64_t row = 0; row < is.rows; ++row) {
    const int64_t new_tokens = std::clamp<int64_t>(count[row], 0, is.length);
    Number* of_keys = keys + (of_row + row) * is.kv_heads * head;
    Number* of_values = values + (of_row + row) * is.kv_heads * head;
    for (int64_t index = 0; index < new_tokens && before[row] + index < is.slots; ++index) {
      for (int64_t kv = 0; kv < is.kv_heads; ++kv) {
        const int64_t from = ((row * is.length + index) * is.kv_heads + kv) * is.size;
        const int64_t to = kv * head + (before[row] + index) * is.size;
        std::memcpy(of_keys + to, k + from, is.size * sizeof(Number));
        std::memcpy(of_values + to, v + from, is.size * sizeof(Number));
      }
    }
    std::memset(out + (row * is.length + new_tokens) * token, 0, (is.length - new_tokens) * token * sizeof(Number));
    for (int64_t kv = 0; kv < is.kv_heads; ++kv) {
      for (int64_t begin = 0; begin < new_tokens; begin += at_once) {
        tasks.push_back({row, kv, begin, std::min(new_tokens, begin + at_once)});
      }
    }
  }
  in_parallel(pool, tasks.size(), [&](int64_t index) {
    const Task& task = tasks[tasks.size() - 1 - index];  // those that see most first
    const int64_t of_head = ((of_row + task.row) * is.kv_heads + task.kv_head) * head;
    const int64_t of_tokens = task.row * is.length * token;
    attend(is, q + of_tokens, keys + of_head, values + of_head, before[task.row], task.begin, task.end, task.kv_head,
           out + of_tokens);
  });
}

// Writes the new tokens' keys and values behind those that their rows have, in place, and attends to them: what
// cached.py says of `append` and `cached_attention`. The tokens are of the rows `of_row`, `of_row` + 1, ... Tokens from
// count on get 0.
ffi::Error Attention(ffi::ThreadPool pool, ffi::AnyBuffer q, ffi::AnyBuffer k, ffi::AnyBuffer v,
                     ffi::Buffer<ffi::S32> before, ffi::Buffer<ffi::S32> count, ffi::Buffer<ffi::S32> of_row,
                     ffi::AnyBuffer, ffi::AnyBuffer, ffi::Result<ffi::AnyBuffer> out,
                     ffi::Result<ffi::AnyBuffer> keys, ffi::Result<ffi::AnyBuffer> values) {
  const auto of_q = q.dimensions(), of_keys = keys->dimensions();
  const Sizes is{of_q[0], of_q[1], of_q[2], of_q[3], of_keys[1], of_keys[2]};
  auto run = [&](auto* numbers) {
    using Number = std::remove_pointer_t<decltype(numbers)>;
    auto of = [](auto& buffer) { return reinterpret_cast<Number*>(buffer.untyped_data()); };
    attention_of<Number>(pool, is, of(q), of(k), of(v), before.typed_data(), count.typed_data(),
                         of_row.typed_data()[0], of(*out), of(*keys), of(*values));
    return ffi::Error::Success();
  };
  switch (q.element_type()) {
    case ffi::F32: return run(static_cast<float*>(nullptr));
    case ffi::BF16: return run(static_cast<BFloat16*>(nullptr));
    default: return ffi::Error::InvalidArgument("a cache of another dtype");
  }
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(opencoder_product, Product,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::PRED>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(opencoder_attention, Attention,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());
