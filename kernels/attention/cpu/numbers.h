// Numbers in memory and in registers: float32, bfloat16 and int8, some at a time.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

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
typedef int32_t Integers __attribute__((vector_size(4 * kLanes)));

struct BFloat16 {
  uint16_t bits;
};

inline Vector& vector(float* at) { return *reinterpret_cast<Vector*>(at); }
inline Vector vector(const float* at) { return *reinterpret_cast<const Vector*>(at); }
inline Vector vector(const int8_t* at) {
  // By what compilers make of a conversion, it takes ten times as long: number by number.
#if defined(__AVX512F__)
  return (Vector)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))));
#elif defined(__AVX2__)
  return (Vector)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at))));
#else
  return __builtin_convertvector(*reinterpret_cast<const Bytes*>(at), Vector);
#endif
}
inline Vector vector(const BFloat16* at) {
  return (Vector)(__builtin_convertvector(*reinterpret_cast<const Halves*>(at), Bits) << 16);
}

// The same, loaded once: compilers like to load it again for each sum, which takes longer than the sums do.
inline Vector in_register(Vector value) {
#if defined(__AVX2__)
  asm("" : "+v"(value));
#endif
  return value;
}

inline void put(float value, float* at) { *at = value; }
inline void put(float value, BFloat16* at) {  // to the nearest, ties to even; what comes here is finite
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  at->bits = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// The sum of the lanes of vectors that together have 16, in one order.
struct Sum {
  Vector lanes[kTile / kLanes] = {};
  float total() const {
    float sum = 0;
    for (int lane = 0; lane < kTile; ++lane) sum += lanes[lane / kLanes][lane % kLanes];
    return sum;
  }
};

// e^x of numbers up to 0, within two units of the last place; 0 where it is below 2^-125.
inline Vector exponential(Vector x) {
  const Vector magic = Vector{} + 12582912.0f;  // whose last bit is worth 1
  Vector whole = (x * 1.44269504088896341f + magic) - magic;
  Vector rest = x - whole * 0.693359375f;
  rest -= whole * -2.12194440e-4f;
  Vector series = Vector{} + 1.9875691500e-4f;
  series = series * rest + 1.3981999507e-3f;
  series = series * rest + 8.3334519073e-3f;
  series = series * rest + 4.1665795894e-2f;
  series = series * rest + 1.6666665459e-1f;
  series = series * rest + 5.0000001201e-1f;
  series = series * rest * rest + rest + 1.0f;
  Integers power = (__builtin_convertvector(whole, Integers) + 127) << 23;
  return x < -86.0f ? Vector{} : series * (Vector)power;
}

// x * sigmoid(x).
inline Vector silu(Vector x) {
  const Vector small = exponential(x < 0 ? x : -x);
  return (x < 0 ? x * small : x) / (1.0f + small);
}
