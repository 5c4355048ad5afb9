// Attention over a cache. A head's keys lie in tiles of 16, [slots / 16, size, 16], as products want their columns; its
// values one after the other, [slots, size]. Rows that have read the same tokens have the same bits in their caches, so
// what a row shares with another, it may read there: what many read stays in the processor's own memory.

#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "numbers.h"
#include "products.h"

constexpr int64_t kBlock = 64;  // values that stay in the first cache while queries weigh them

// One head's part of the cache of a row, and of the one that holds the same in its first `shared` slots.
template <typename Number>
struct Head {
  const Number *keys, *values, *shared_keys, *shared_values;
  int64_t shared;
};

template <typename Number>
void put_key(const float* key, int64_t slot, int64_t size, Number* keys) {
  Number* to = keys + slot / kTile * kTile * size + slot % kTile;
  for (int64_t d = 0; d < size; ++d) put(key[d], to + d * kTile);
}

template <typename Number>
void put_value(const float* value, int64_t slot, int64_t size, Number* values) {
  for (int64_t d = 0; d < size; ++d) put(value[d], values + slot * size + d);
}

// What one query weighs values by: scores [0, visible) become e^(score - highest), those up to `slots`, a multiple of
// 16, 0. Returns their sum.
inline float weigh(float* scores, int64_t visible, int64_t slots) {
  for (int64_t slot = visible; slot < slots; ++slot) scores[slot] = -std::numeric_limits<float>::infinity();
  Vector highs = vector(scores);
  for (int64_t slot = kLanes; slot < slots; slot += kLanes) {
    const Vector here = vector(scores + slot);
    highs = here > highs ? here : highs;
  }
  float highest = highs[0];
  for (int lane = 1; lane < kLanes; ++lane) highest = std::max(highest, highs[lane]);
  Sum sums;
  for (int64_t slot = 0; slot < slots; slot += kLanes) {
    Vector& at = vector(scores + slot);
    at = exponential(at - highest);
    sums.lanes[slot % kTile / kLanes] += at;
  }
  return sums.total();
}

// What some queries, already scaled, see of a head: query r of the slots [0, visible[r]), in ascending order.
template <typename Number>
void attend(const Head<Number>& head, int64_t size, const std::vector<const float*>& queries,
            const std::vector<int64_t>& visible, const std::vector<float*>& out) {
  thread_local std::vector<float> numbers;
  const int64_t count = queries.size(), all = visible.back(), tiles = (all + kTile - 1) / kTile, slots = tiles * kTile;
  numbers.resize(count * slots);
  std::vector<float*> scores(count);
  for (int64_t row = 0; row < count; ++row) scores[row] = numbers.data() + row * slots;
  const int64_t common = std::min(head.shared, all) / kBlock * kBlock, of_tile = size * kTile;
  auto rate = [&](const Number* keys, int64_t begin, int64_t end) {
    multiply_tiles(queries.data(), count, Columns<Number>{keys + begin * of_tile, of_tile, kTile}, end - begin, 0, size,
                   of_tile, scores.data(), begin * kTile);
  };
  rate(head.shared_keys, 0, common / kTile);
  rate(head.keys, common / kTile, tiles);
  std::vector<float> sums(count);
  for (int64_t row = 0; row < count; ++row) sums[row] = weigh(scores[row], visible[row], slots);
  for (int64_t slot = 0; slot < all;) {
    const int64_t end = std::min(slot + kBlock, slot < common ? common : all);
    const Number* values = slot < common ? head.shared_values : head.values;
    multiply_tiles(scores.data(), count, Columns<Number>{values, kTile, size}, size / kTile, slot, end - slot,
                   kBlock * size, out.data(), 0);
    slot = end;
  }
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t d = 0; d < size; ++d) out[row][d] /= sums[row];
  }
}
