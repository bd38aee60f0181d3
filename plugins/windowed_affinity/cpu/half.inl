// Conversion of IEEE half precision by bit operations, the same for every instruction set.
[[maybe_unused]] inline float widen(uint16_t half) {
    const uint32_t magnitude = half & 0x7fffu;
    float value = __builtin_bit_cast(float, magnitude << 13) * 0x1p112f;  // correct for subnormal halves, too
    uint32_t bits = __builtin_bit_cast(uint32_t, value);
    if (magnitude >= 0x7c00u) bits |= 0x7f800000u;  // infinities and NaN
    return __builtin_bit_cast(float, bits | static_cast<uint32_t>(half & 0x8000u) << 16);
}
[[maybe_unused]] inline float widen(float value) { return value; }

[[maybe_unused]] inline void narrow(float value, float* to) { *to = value; }
[[maybe_unused]] inline void narrow(float value, uint16_t* to) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, value), sign = bits >> 16 & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t half;
    if (magnitude >= 0x47800000u) {  // 65536 and above, infinities, NaN
        half = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    } else if (magnitude < 0x38800000u) {  // subnormal half: the addition rounds to a multiple of 2^-24
        half = __builtin_bit_cast(uint32_t, __builtin_bit_cast(float, magnitude) + 0.5f) - 0x3f000000u;
    } else {
        half = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;  // rounds to nearest, ties to even
    }
    *to = static_cast<uint16_t>(sign | half);
}
