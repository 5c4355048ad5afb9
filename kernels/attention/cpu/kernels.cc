// What an engine's steps spend their time on, on CPUs, as XLA calls it. XLA's own products don't keep a row's bits its
// own (kernels/attention/rows.py), and pack the matrix anew, or read it slowly, for the few rows that a step has; and
// between many small calls one thread waits for the other.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "layers.h"
#include "products.h"
#include "team.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

Matrix matrix_of(const ffi::AnyBuffer& numbers, const ffi::AnyBuffer& scales) {
  const auto sizes = numbers.dimensions();  // [tiles, depth, 16]
  const float* of_columns = scales.element_count() ? static_cast<const float*>(scales.untyped_data()) : nullptr;
  return {numbers.untyped_data(), numbers.element_type(), of_columns, sizes[1], sizes[0]};
}

// out [M, N] = x [M, K] @ matrix in those rows that are kept; 0 in the others.
ffi::Error Product(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::AnyBuffer numbers, ffi::AnyBuffer scales,
                   ffi::Buffer<ffi::PRED> keep, ffi::ResultBuffer<ffi::F32> out) {
  const int64_t count = x.dimensions()[0], depth = x.dimensions()[1], width = out->dimensions()[1];
  const Matrix matrix = matrix_of(numbers, scales);
  std::vector<const float*> rows;
  std::vector<float*> sums;
  for (int64_t row = 0; row < count; ++row) {
    float* of_row = out->typed_data() + row * width;
    if (keep.typed_data()[row]) {
      rows.push_back(x.typed_data() + row * depth);
      sums.push_back(of_row);
    } else {
      std::fill(of_row, of_row + width, 0.0f);
    }
  }
  if (rows.empty()) return ffi::Error::Success();
  Team team(pool);
  const int64_t whole = width / kTile;  // tiles; the last one may be wider than what is left of the rows
  if (whole) product(team, rows, part_of(matrix, 0, whole), sums);
  if (whole < matrix.tiles) {
    Table edges(rows.size(), kTile);
    product(team, rows, part_of(matrix, whole, matrix.tiles), edges.begins());
    for (size_t row = 0; row < rows.size(); ++row) {
      std::copy_n(edges[row], width - whole * kTile, sums[row] + whole * kTile);
    }
  }
  return ffi::Error::Success();
}

constexpr int64_t kOfLayer = 10;  // buffers of a layer's weights

ffi::Error Layers(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> cosines,
                  ffi::Buffer<ffi::F32> sines, ffi::Buffer<ffi::S32> before, ffi::Buffer<ffi::S32> count,
                  ffi::Buffer<ffi::S32> row, ffi::Buffer<ffi::S32> source, ffi::Buffer<ffi::S32> shared,
                  ffi::Buffer<ffi::F32> final_norm, ffi::RemainingArgs rest, ffi::ResultBuffer<ffi::F32> out,
                  ffi::RemainingRets cache, int64_t heads, float eps, bool wanted) {
  const int64_t number = cache.size() / 2;
  std::vector<Layer> layers;
  auto buffer = [&](int64_t index) { return rest.get<ffi::AnyBuffer>(index).value(); };
  for (int64_t index = 0; index < number; ++index) {
    const int64_t at = index * kOfLayer;
    auto norm = [&](int64_t place) { return static_cast<const float*>(buffer(at + place).untyped_data()); };
    auto matrix = [&](int64_t place) { return matrix_of(buffer(at + place), buffer(at + place + 1)); };
    layers.push_back({norm(0), matrix(1), matrix(3), norm(5), matrix(6), matrix(8),
                      cache.get<ffi::AnyBuffer>(index).value()->untyped_data(),
                      cache.get<ffi::AnyBuffer>(number + index).value()->untyped_data()});
  }
  auto keys = cache.get<ffi::AnyBuffer>(0).value();
  const auto of_keys = keys->dimensions();  // [R, K, T, D]
  const int64_t rows = before.dimensions()[0], width = x.dimensions()[1];
  const Sizes sizes{rows, x.dimensions()[0] / rows, heads, of_keys[3], of_keys[1], of_keys[2], width, eps};
  const Places places{before.typed_data(), count.typed_data(), source.typed_data(), shared.typed_data(),
                      row.typed_data()[0]};
  Team team(pool);
  auto run = [&](auto number) {
    Stack<decltype(number)>(team, sizes, places, cosines.typed_data(), sines.typed_data())
        .run(layers, final_norm.typed_data(), wanted, x.typed_data(), out->typed_data());
    return ffi::Error::Success();
  };
  switch (keys->element_type()) {
    case ffi::F32: return run(float{});
    case ffi::BF16: return run(BFloat16{});
    default: return ffi::Error::InvalidArgument("a cache of another dtype");
  }
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(opencoder_product, Product,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::PRED>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(opencoder_layers, Layers,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .RemainingArgs()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .RemainingRets()
                                  .Attr<int64_t>("heads")
                                  .Attr<float>("eps")
                                  .Attr<bool>("wanted"));
