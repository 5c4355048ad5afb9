// Products of some rows with matrices that lie in panels. Each sum is taken in one order, so a row's bits depend on that
// row alone: not on how many rows there are, where it stands, or how many threads there are. The order is one chain of
// multiply-adds for 256 numbers, whose sums are added up: one chain for all errs twice as much.

#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "numbers.h"
#include "team.h"

constexpr int64_t kDepth = 256;  // rows of a panel that stay in the first cache while rows are multiplied by it
constexpr int64_t kRows = 144;   // rows of which as much stays in the second one
constexpr int64_t kSmall = 32768;  // numbers of all rows that stay in it whole
constexpr int kMost = 6;         // rows whose sums fit into the registers
constexpr int kMany = 2;         // vectors of columns beside them
constexpr int kFew = 64 / kLanes / 2;  // the same for one row or two

// Columns of a matrix: column c of tile t, row k, lies at numbers[t * tile_stride + k * stride + c].
template <typename Number>
struct Columns {
  const Number* numbers;
  int64_t tile_stride, stride;
};

// Adds to out[r][0 .. C * kLanes) the sums over k of rows[r][k] * columns [k], or sets them.
template <int R, int C, typename Number>
[[gnu::noinline]] void multiply(const float* const* rows, Columns<Number> columns, int64_t depth, int64_t ahead,
                                float* const* out, bool add) {
  constexpr int kVectors = kTile / kLanes;
  Vector sums[R][C];
  const float* row[R];
  for (int r = 0; r < R; ++r) {
    row[r] = rows[r];
    for (int c = 0; c < C; ++c) sums[r][c] = Vector{};
  }
  const Number* at = columns.numbers;
  for (int64_t k = 0; k < depth; ++k, at += columns.stride) {
    if constexpr (R > 3) {  // with fewer rows there's nothing else to do than to wait for the matrix
      for (int c = 0; c < C; c += kVectors) __builtin_prefetch(at + ahead + c / kVectors * columns.tile_stride, 0, 2);
    }
    Vector column[C];
    for (int c = 0; c < C; ++c) {
      column[c] = in_register(vector(at + c / kVectors * columns.tile_stride + c % kVectors * kLanes));
    }
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < C; ++c) sums[r][c] += row[r][k] * column[c];
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c) {
      Vector& to = vector(out[r] + c * kLanes);
      to = add ? to + sums[r][c] : sums[r][c];
    }
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

// How many of `left` rows to multiply next: parts as even as can be, but 6 and 2 rather than 4 and 4, whose sums are too
// few for the processor to be always at work on some.
inline int64_t next_part(int64_t left) {
  const int64_t parts = (left + kMost - 1) / kMost, rest = left % kMost;
  return parts > 1 && parts < 4 && (rest == 1 || rest == 2) ? kMost : (left + parts - 1) / parts;
}

// Some rows times some tiles of columns, from row k of these and number k of those on: added to the sums if k > 0, or
// set.
template <typename Number>
void multiply_tiles(const float* const* rows, int64_t count, Columns<Number> columns, int64_t tiles, int64_t k,
                    int64_t depth, int64_t ahead, float* const* out, int64_t out_column) {
  constexpr int kVectors = kTile / kLanes;
  constexpr int64_t kFewTiles = kFew / kVectors, kManyTiles = kMany / kVectors;
  auto of = [&](auto vectors, int64_t first, int64_t part, int64_t tile) {
    const Columns<Number> at{columns.numbers + tile * columns.tile_stride + k * columns.stride, columns.tile_stride,
                             columns.stride};
    const float* row[kMost];
    float* to[kMost];
    for (int64_t r = 0; r < part; ++r) {
      row[r] = rows[first + r] + k;
      to[r] = out[first + r] + out_column + tile * kTile;
    }
    multiply_some<decltype(vectors)::value>(part, row, at, depth, ahead, to, k > 0);
  };
  int64_t last = count;  // rows of the last part
  while (last > kMost) last -= next_part(last);
  const int64_t at_once = last <= 2 ? kFewTiles : kManyTiles;
  for (int64_t begin = 0; begin < tiles; begin += at_once) {
    const int64_t end = std::min(tiles, begin + at_once);
    for (int64_t first = 0, part; first < count; first += part) {
      part = next_part(count - first);
      if (part <= 2 && end - begin == kFewTiles) {
        of(std::integral_constant<int, kFew>(), first, part, begin);
        continue;
      }
      int64_t tile = begin;
      for (; tile + kManyTiles <= end; tile += kManyTiles) of(std::integral_constant<int, kMany>(), first, part, tile);
      for (; tile < end; ++tile) of(std::integral_constant<int, kVectors>(), first, part, tile);
    }
  }
}

// Rows of numbers, and where they begin.
class Table {
 public:
  Table(int64_t rows, int64_t width) : numbers_(rows * width), begins_(rows) {
    for (int64_t row = 0; row < rows; ++row) begins_[row] = numbers_.data() + row * width;
  }
  float* operator[](int64_t row) { return begins_[row]; }
  const std::vector<float*>& begins() const { return begins_; }
  std::vector<const float*> read_only() const { return {begins_.begin(), begins_.end()}; }

 private:
  std::vector<float> numbers_;
  std::vector<float*> begins_;
};

// A matrix [depth, 16 * tiles] in panels of 16 columns: packed.py. In 8 bits, column c is worth its numbers times
// scales[c].
struct Matrix {
  const void* numbers;
  xla::ffi::DataType type;
  const float* scales;  // or null
  int64_t depth, tiles;
};

// The columns of tiles [begin, end).
inline Matrix part_of(const Matrix& matrix, int64_t begin, int64_t end) {
  const int64_t before = begin * kTile, bytes = xla::ffi::ByteWidth(matrix.type) * before * matrix.depth;
  return {static_cast<const char*>(matrix.numbers) + bytes, matrix.type,
          matrix.scales ? matrix.scales + before : nullptr, matrix.depth, end - begin};
}

// out[r] = rows[r] @ matrix; what threads have done of it, tiles [begin, end) of all rows, they hand to then(begin, end).
// Both ends are even but for the last one.
template <typename Number, typename Then>
void product_of(Team& team, const std::vector<const float*>& rows, const Number* numbers, const Matrix& matrix,
                const std::vector<float*>& out, const Then& then) {
  const int64_t count = rows.size(), depth = matrix.depth, tiles = matrix.tiles;
  const bool small = count * depth <= kSmall;
  // What many rows read of the rows, they read for eight tiles; few go through the matrix as it lies.
  const int64_t at_once = small ? 2 : 8, ahead = small ? kDepth * kTile : depth * kTile;
  const int64_t blocks = small ? 1 : (count + kRows - 1) / kRows;
  const int64_t block = (count + blocks * kMost - 1) / (blocks * kMost) * kMost;
  auto multiply_all = [&](int64_t begin, int64_t end) {
    for (int64_t first = 0; first < count; first += block) {
      const int64_t some = std::min(block, count - first);
      for (int64_t tile = begin; tile < end; tile += at_once) {
        const int64_t wide = std::min(at_once, end - tile);
        for (int64_t k = 0; k < depth; k += kDepth) {
          multiply_tiles(rows.data() + first, some, Columns<Number>{numbers + tile * depth * kTile, depth * kTile, kTile},
                         wide, k, std::min(kDepth, depth - k), ahead, out.data() + first, tile * kTile);
        }
      }
    }
    for (int64_t row = 0; matrix.scales && row < count; ++row) {
      for (int64_t column = begin * kTile; column < end * kTile; ++column) out[row][column] *= matrix.scales[column];
    }
    then(begin, end);
  };
  // Several tasks a thread, so that one that is held up doesn't hold up all; as long as each other.
  const int64_t pairs = (tiles + 1) / 2, some = (pairs + 6 * team.threads() - 1) / (6 * team.threads());
  team.run((pairs + some - 1) / some, [&](int64_t task) {
    multiply_all(task * some * 2, std::min(tiles, (task + 1) * some * 2));
  });
}

template <typename Then>
void product(Team& team, const std::vector<const float*>& rows, const Matrix& matrix, const std::vector<float*>& out,
             const Then& then) {
  switch (matrix.type) {
    case xla::ffi::BF16:
      return product_of(team, rows, static_cast<const BFloat16*>(matrix.numbers), matrix, out, then);
    case xla::ffi::S8:
      return product_of(team, rows, static_cast<const int8_t*>(matrix.numbers), matrix, out, then);
    default: return product_of(team, rows, static_cast<const float*>(matrix.numbers), matrix, out, then);
  }
}

inline void product(Team& team, const std::vector<const float*>& rows, const Matrix& matrix,
                    const std::vector<float*>& out) {
  product(team, rows, matrix, out, [](int64_t, int64_t) {});
}
