// Numbers in memory and in registers: float32, bfloat16 and int8, some at a time.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif
constexpr int kTile = 16;  // columns, keys or numbers of a value that lie together, or are taken at once (packed.py)

typedef float Vector __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef uint32_t Bits __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));
typedef int8_t Bytes __attribute__((vector_size(kLanes), aligned(1), may_alias));
typedef float Tile __attribute__((vector_size(4 * kTile), aligned(4), may_alias));
typedef int32_t TileBits __attribute__((vector_size(4 * kTile)));

struct BFloat16 {
  uint16_t bits;
};

inline Vector vector(const float* at) { return *reinterpret_cast<const Vector*>(at); }
inline Vector vector(const int8_t* at) {
  return __builtin_convertvector(*reinterpret_cast<const Bytes*>(at), Vector);
}
inline Vector vector(const BFloat16* at) {
  return (Vector)(__builtin_convertvector(*reinterpret_cast<const Halves*>(at), Bits) << 16);
}

// The same, loaded once: compilers like to load it again for each sum, which takes longer than the sums do.
inline Vector in_register(Vector value) {
#if defined(__x86_64__)
  asm("" : "+v"(value));
#endif
  return value;
}

inline Tile& tile_at(float* at) { return *reinterpret_cast<Tile*>(at); }
inline const Tile& tile_at(const float* at) { return *reinterpret_cast<const Tile*>(at); }

inline void put(float value, float* at) { *at = value; }
inline void put(float value, BFloat16* at) {  // to the nearest, ties to even; what comes here is finite
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  at->bits = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// The sum of lanes, in one order.
inline float sum_of(Tile lanes) {
  float sum = 0;
  for (int lane = 0; lane < kTile; ++lane) sum += lanes[lane];
  return sum;
}

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

// x * sigmoid(x).
inline Tile silu(Tile x) {
  const Tile small = exponential(x < 0 ? x : -x);
  return x * (x < 0 ? small : Tile{} + 1.0f) / (1.0f + small);
}
