// What every instruction set's kernel is given, and the table through which one is chosen.
#pragma once

#include <cstddef>
#include <cstdint>

namespace maskring {

enum class Storage { f32, f16 };

// Shapes as in reference.py; all arrays are dense and row-major.
struct Problem {
  int batch, slots, channels, labels, height, width;
  int radius, top_k;
  float scale;
  Storage storage;           // of query, keys, values and out
  const void* query;         // [B, C, H, W]
  const void* keys;          // [B, N, C, H, W]
  const void* values;        // [B, N, O, H, W]
  const int32_t* dilation;   // [B, N]
  const int32_t* offsets;    // [B, N, 2, H, W] or null
  void* out;                 // [B, O, H, W]
};

// A rectangle of query pixels of one batch element: the unit of work of a thread.
struct Rectangle {
  int batch, top, left, rows, columns;
};

// One instruction set's implementation. `scratch` is 64-byte aligned and holds at least *_scratch floats.
struct Kernel {
  const char* name;
  // Windows centred on their own pixel, all logits kept: the fast path.
  void (*fused)(const Problem&, const Rectangle&, float* scratch);
  size_t (*fused_scratch)(const Problem&, int rows, int columns);
  // Any offsets, any top_k. Reads copies of keys and values with their channels last, in f32.
  void (*gathered)(const Problem&, const Rectangle&, const float* keys, const float* values, float* scratch);
  size_t (*gathered_scratch)(const Problem&);
};

// The sets this library was compiled for that this processor has, best first.
struct KernelList {
  const Kernel* kernels[4];
  int count;
};
KernelList available_kernels();

// The k-th largest of n numbers, which are reordered; 1 <= k <= n.
float kth_largest(float* numbers, int n, int k);

void compute(const Problem& problem, const Kernel& kernel, int threads);

}  // namespace maskring
