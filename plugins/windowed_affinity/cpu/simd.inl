// Vectors of LANES floats by the compiler's vector extensions, and what the kernels need of arithmetic on them.
//
// Everything here has internal linkage, and no inline function of the standard library is used: this text is
// compiled once per instruction set, and the linker must never pick another set's copy.
typedef float Vec __attribute__((vector_size(LANES * sizeof(float))));
typedef float VecUnaligned __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float))));
typedef int32_t IntVec __attribute__((vector_size(LANES * sizeof(float))));

inline Vec load(const float* at) { return *reinterpret_cast<const Vec*>(at); }
inline Vec load_unaligned(const float* at) { return *reinterpret_cast<const VecUnaligned*>(at); }
inline void store(float* at, Vec v) { *reinterpret_cast<Vec*>(at) = v; }
inline Vec splat(float x) { return x - Vec{}; }
inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }
inline int smaller_of(int a, int b) { return a < b ? a : b; }
inline int larger_of(int a, int b) { return a > b ? a : b; }
inline size_t round_up(size_t n, size_t step) { return (n + step - 1) / step * step; }

// Keeps a loaded vector in its register: compilers like to fold a load into each multiplication that uses it,
// and loads are what the inner loop is short of.
#if defined(__x86_64__)
#define KEEP_IN_REGISTER(vector) __asm__("" : "+v"(vector))
#elif defined(__aarch64__)
#define KEEP_IN_REGISTER(vector) __asm__("" : "+w"(vector))
#else
#define KEEP_IN_REGISTER(vector) (void)0
#endif

constexpr float kLog2E = 1.44269504f;
constexpr float kHidden = -3e38f;   // what a logit outside the frame is lowered by

// 2^x for x <= 0 with a relative error below 3e-7 (minimax polynomial). Below -126 the result stays at 2^-126: beside the weight 1
// of the largest logit that is nothing, and pixels without a valid logit are told by their maximum.
inline Vec exp2_nonpositive(Vec x) {
  x = larger(x, splat(-126.f));
  const Vec magic = splat(0x1.8p23f);  // adding it rounds to an integer, which then stands in the low bits
  const Vec shifted = x + magic;
  const Vec f = x - (shifted - magic);  // in [-1/2, 1/2]
  Vec p = splat(0.0013240888f) * f + 0.0096747392f;
  p = p * f + 0.055508376f;
  p = p * f + 0.24022154f;
  p = p * f + 0.69314689f;
  p = p * f + 1.0000001f;
  const IntVec exponent = __builtin_bit_cast(IntVec, shifted) << 23;
  return __builtin_bit_cast(Vec, __builtin_bit_cast(IntVec, p) + exponent);
}
