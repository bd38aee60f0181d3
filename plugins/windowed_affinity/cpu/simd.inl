// Vectors of LANES floats, by the compiler's vector extensions.
//
// This text is compiled once per instruction set. Everything here has internal linkage and uses no inline function of
// the standard library; otherwise the linker could pick the copy of another instruction set.
typedef float Vec __attribute__((vector_size(LANES * sizeof(float))));
typedef float VecUnaligned __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float))));
typedef int32_t IntVec __attribute__((vector_size(LANES * sizeof(float))));

inline Vec load(const float* at) { return *reinterpret_cast<const Vec*>(at); }
inline Vec load_unaligned(const float* at) { return *reinterpret_cast<const VecUnaligned*>(at); }
inline void store(float* at, Vec v) { *reinterpret_cast<Vec*>(at) = v; }
inline Vec splat(float x) { return x - Vec{}; }
inline Vec max_of(Vec a, Vec b) { return a > b ? a : b; }
inline int min_int(int a, int b) { return a < b ? a : b; }
inline int max_int(int a, int b) { return a > b ? a : b; }
inline size_t round_up(size_t n, size_t step) { return (n + step - 1) / step * step; }

// Keeps a loaded vector in a register. Compilers tend to repeat the load as an operand of each multiplication, but the
// inner loop is limited by loads.
#if defined(__x86_64__)
#define KEEP_IN_REGISTER(vector) __asm__("" : "+v"(vector))
#elif defined(__aarch64__)
#define KEEP_IN_REGISTER(vector) __asm__("" : "+w"(vector))
#else
#define KEEP_IN_REGISTER(vector) (void)0
#endif

constexpr float LOG2_E = 1.44269504f;
constexpr float MASK_VALUE = -3e38f;  // logit of a masked position

// 2^x for x <= 0 by a minimax polynomial, relative error below 3e-7. The result is at least 2^-126, which is negligible
// next to the weight 1 of the largest logit. Queries without a valid logit are recognized by their maximum.
inline Vec exp2_nonpositive(Vec x) {
    x = max_of(x, splat(-126.f));
    const Vec magic = splat(0x1.8p23f);  // adding it rounds to an integer, in the low bits
    const Vec rounded = x + magic;
    const Vec f = x - (rounded - magic);  // in [-1/2, 1/2]
    Vec p = splat(0.0013240888f) * f + 0.0096747392f;
    p = p * f + 0.055508376f;
    p = p * f + 0.24022154f;
    p = p * f + 0.69314689f;
    p = p * f + 1.0000001f;
    const IntVec exponent = __builtin_bit_cast(IntVec, rounded) << 23;
    return __builtin_bit_cast(Vec, __builtin_bit_cast(IntVec, p) + exponent);
}
