// A decoder's layers over a cache, from the embedding's rows to the final norm: what model/decoding.py says of `extend`.
//
// Arrays are dense, their last axis first in memory. Letters as there: B rows with S new tokens each, R rows of the cache
// with T slots, H heads and K of keys, D numbers a head, W numbers in the stream, F in the feed-forward. The stream and
// what is made of it are float32, whatever the weights and the cache are.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "attention.h"
#include "numbers.h"
#include "products.h"
#include "team.h"

struct Layer {
  const float* attention_norm;
  Matrix heads;  // of queries, keys and values: [W, (H + 2K) * D]
  Matrix output;
  const float* ffn_norm;
  Matrix gated;  // tiles of the gate and of what it gates by turns
  Matrix down;
  void *keys, *values;  // of the cache: [R, K, T / 16, D, 16] and [R, K, T, D]
};

struct Sizes {
  int64_t rows, length, heads, size, kv_heads, slots, width;  // B, S, H, D, K, T, W
  float eps;
};

// What is to be read, of each of B rows.
struct Places {
  const int32_t *before, *count;  // tokens that were read before, and those of S that are to be read
  const int32_t *source, *shared;  // the row that holds the same in the first slots, and how many
  int64_t row;                     // of the cache, the first one's
};

inline void normed(const float* x, const float* scale, int64_t width, float eps, float* out) {
  Sum squares;
  int64_t at = 0;
  for (; at + kLanes <= width; at += kLanes) squares.lanes[at % kTile / kLanes] += vector(x + at) * vector(x + at);
  float sum = squares.total();
  for (; at < width; ++at) sum += x[at] * x[at];
  const float by = 1 / __builtin_sqrtf(sum / width + eps);
  for (at = 0; at < width; ++at) out[at] = x[at] * by * scale[at];
}

// Turns the pairs (i, i + size / 2) of a head.
inline void turn(float* x, const float* cosines, const float* sines, int64_t half, float scale) {
  for (int64_t i = 0; i < half; ++i) {
    const float one = x[i], other = x[i + half];
    x[i] = (one * cosines[i] - other * sines[i]) * scale;
    x[i + half] = (other * cosines[i] + one * sines[i]) * scale;
  }
}

// Runs task(row) for many rows, some at a time.
template <typename Task>
void for_rows(Team& team, int64_t count, const Task& task) {
  const int64_t parts = std::min((count + 3) / 4, 4 * team.threads());
  team.run(parts, [&](int64_t part) {
    for (int64_t row = part * count / parts; row < (part + 1) * count / parts; ++row) task(row);
  });
}

template <typename Number>
class Stack {
 public:
  Stack(Team& team, const Sizes& sizes, const Places& places, const float* cosines, const float* sines)
      : team_(team), is_(sizes), places_(places), cosines_(cosines), sines_(sines) {
    for (int64_t row = 0; row < is_.rows; ++row) {
      const int64_t count = std::clamp<int64_t>(places.count[row], 0, is_.length);
      for (int64_t index = 0; index < count; ++index) {
        tokens_.push_back({row, row * is_.length + index, places.before[row] + index});
      }
    }
    const int64_t at_once = std::max<int64_t>(1, kQueries * is_.kv_heads / is_.heads), count = tokens_.size();
    for (int64_t head = 0; head < is_.kv_heads; ++head) {
      for (int64_t begin = 0, end; begin < count; begin = end) {
        for (end = begin; end < std::min(count, begin + at_once) && tokens_[end].row == tokens_[begin].row;) ++end;
        parts_.push_back({head, begin, end});
      }
    }
  }

  // x [B * S, W] becomes the final-normed stream; zeros where nothing was to be read. Unless that is `wanted`, only the
  // cache is written.
  void run(const std::vector<Layer>& layers, const float* final_norm, bool wanted, const float* x, float* out) {
    const int64_t count = tokens_.size(), width = is_.width, all = (is_.heads + 2 * is_.kv_heads) * is_.size;
    std::fill(out, out + is_.rows * is_.length * width, 0.0f);
    if (!count) return;
    const int64_t gated = layers[0].gated.tiles / 2 * kTile;
    Table stream(count, width), added(count, padded(width)), h(count, width), heads(count, all);
    Table mixed(count, is_.heads * is_.size), both(count, 2 * gated), inner(count, gated);
    for (int64_t token = 0; token < count; ++token) {
      std::copy_n(x + tokens_[token].index * width, width, stream[token]);
      std::fill_n(added[token], width, 0.0f);
    }
    // The stream with what was added to it, and its norm.
    auto next = [&](const float* scale, auto&& to) {
      for_rows(team_, count, [&](int64_t token) {
        for (int64_t at = 0; at < width; ++at) stream[token][at] += added[token][at];
        normed(stream[token], scale, width, is_.eps, to(token));
      });
    };
    auto of_h = [&](int64_t token) { return h[token]; };
    for (const Layer& layer : layers) {
      next(layer.attention_norm, of_h);
      if (!wanted && &layer == &layers.back()) {
        const int64_t of_queries = is_.heads * is_.size;
        std::vector<float*> to;
        for (float* begin : heads.begins()) to.push_back(begin + of_queries);
        product(team_, h.read_only(), part_of(layer.heads, of_queries / kTile, layer.heads.tiles), to);
        return append(heads, layer);
      }
      product(team_, h.read_only(), layer.heads, heads.begins());
      append(heads, layer);
      attention(heads, layer, mixed);
      product(team_, mixed.read_only(), layer.output, added.begins());
      next(layer.ffn_norm, of_h);
      product(team_, h.read_only(), layer.gated, both.begins(), [&](int64_t begin, int64_t end) {
        for (int64_t token = 0; token < count; ++token) {
          for (int64_t tile = begin; tile < end; tile += 2) {
            const float* at = both[token] + tile * kTile;
            float* to = inner[token] + tile / 2 * kTile;
            for (int c = 0; c < kTile; c += kLanes) vector(to + c) = silu(vector(at + c)) * vector(at + kTile + c);
          }
        }
      });
      product(team_, inner.read_only(), layer.down, added.begins());
    }
    next(final_norm, [&](int64_t token) { return out + tokens_[token].index * width; });
  }

 private:
  static constexpr int64_t kQueries = 48;  // that share a reading of the keys

  struct Token {
    int64_t row, index, position;  // of B, of B * S, in its row
  };
  struct Part {  // tokens [begin, end) of one row, and the queries of one key head
    int64_t head, begin, end;
  };

  static int64_t padded(int64_t width) { return (width + kTile - 1) / kTile * kTile; }

  int64_t of_cache(int64_t row, int64_t head) const { return (row * is_.kv_heads + head) * is_.slots * is_.size; }

  // Turns queries and keys to their positions, and writes keys and values into the cache. What would lie behind the last
  // slot is dropped.
  void append(Table& heads, const Layer& layer) {
    const int64_t size = is_.size, half = size / 2;
    const float scale = 1 / __builtin_sqrtf(static_cast<float>(size));
    for_rows(team_, tokens_.size(), [&](int64_t number) {
      const Token& token = tokens_[number];
      const float *cosines = cosines_ + token.index * half, *sines = sines_ + token.index * half;
      float* at = heads[number];
      for (int64_t head = 0; head < is_.heads; ++head, at += size) turn(at, cosines, sines, half, scale);
      for (int64_t head = 0; head < is_.kv_heads; ++head, at += size) {
        turn(at, cosines, sines, half, 1);
        if (token.position < is_.slots) {
          const int64_t to = of_cache(places_.row + token.row, head);
          put_key(at, token.position, size, static_cast<Number*>(layer.keys) + to);
          put_value(at + is_.kv_heads * size, token.position, size, static_cast<Number*>(layer.values) + to);
        }
      }
    });
  }

  void attention(Table& heads, const Layer& layer, Table& mixed) {
    const int64_t size = is_.size, group = is_.heads / is_.kv_heads;
    team_.run(parts_.size(), [&](int64_t number) {
      const Part& part = parts_[number];
      const int64_t row = tokens_[part.begin].row;
      const int64_t own = of_cache(places_.row + row, part.head), other = of_cache(places_.source[row], part.head);
      const Number *keys = static_cast<Number*>(layer.keys), *values = static_cast<Number*>(layer.values);
      const Head<Number> head{keys + own, values + own, keys + other, values + other, places_.shared[row]};
      std::vector<const float*> queries;
      std::vector<float*> out;
      std::vector<int64_t> visible;
      for (int64_t token = part.begin; token < part.end; ++token) {
        for (int64_t query = part.head * group; query < (part.head + 1) * group; ++query) {
          queries.push_back(heads[token] + query * size);
          out.push_back(mixed[token] + query * size);
          visible.push_back(std::min(tokens_[token].position + 1, is_.slots));
        }
      }
      attend(head, size, queries, visible, out);
    });
  }

  Team& team_;
  const Sizes is_;
  const Places places_;
  const float *cosines_, *sines_;
  std::vector<Token> tokens_;
  std::vector<Part> parts_;
};
