/* Vectors of AVX2 or AVX-512, fp32 and bf16 buffers, threads and sums over rows: for training.c and training_attention.c. */
#pragma once
#include <immintrin.h>
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))

/* ── Vectors ─────────────────────────────────────────────────────────────────────────────────────────────────────── */

#ifdef __AVX512F__
#define LANES 16
#define V(name) _mm512_##name
typedef __m512 vector;
typedef __m256i half_vector;
ALWAYS vector rounded(vector x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
ALWAYS float total(vector x) { return _mm512_reduce_add_ps(x); }
ALWAYS float largest(vector x) { return _mm512_reduce_max_ps(x); }
ALWAYS vector widened(half_vector x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }
ALWAYS half_vector load_half(const void *p) { return _mm256_loadu_si256(p); }
ALWAYS void store_half(void *p, half_vector x) { _mm256_storeu_si256(p, x); }
ALWAYS half_vector narrowed(vector x) {
#ifdef __AVX512BF16__
    return (half_vector)_mm512_cvtneps_pbh(x);
#else
    __m512i bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i high = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    high = _mm512_mask_mov_epi32(high, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fc0));
    return _mm512_cvtepi32_epi16(high);
#endif
}
#else
#define LANES 8
#define V(name) _mm256_##name
typedef __m256 vector;
typedef __m128i half_vector;
ALWAYS vector rounded(vector x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
ALWAYS float total(vector x) {
    __m128 a = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
}
ALWAYS float largest(vector x) {
    __m128 a = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
}
ALWAYS vector widened(half_vector x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16)); }
ALWAYS half_vector load_half(const void *p) { return _mm_loadu_si128(p); }
ALWAYS void store_half(void *p, half_vector x) { _mm_storeu_si128(p, x); }
ALWAYS half_vector narrowed(vector x) {
    __m256i bits = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i high = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    high = _mm256_blendv_epi8(high, _mm256_set1_epi32(0x7fc0), _mm256_castps_si256(nan));
    return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}
#endif

ALWAYS vector all(float x) { return V(set1_ps)(x); }
ALWAYS vector load(const float *p) { return V(loadu_ps)(p); }
ALWAYS void store(float *p, vector x) { V(storeu_ps)(p, x); }
ALWAYS vector fused(vector a, vector b, vector c) { return V(fmadd_ps)(a, b, c); }

/* Numbers i to i + LANES of a buffer in fp32 or bf16. */
ALWAYS vector get(const void *p, long i, int low) {
    return low ? widened(load_half((const uint16_t *)p + i)) : load((const float *)p + i);
}
ALWAYS void put(void *p, long i, vector x, int low) {
    if (low)
        store_half((uint16_t *)p + i, narrowed(x));
    else
        store((float *)p + i, x);
}
ALWAYS float get_one(const void *p, long i, int low) {
    if (!low) return ((const float *)p)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)p)[i] << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
ALWAYS void put_one(void *p, long i, float x, int low) {
    if (!low) {
        ((float *)p)[i] = x;
        return;
    }
    uint16_t made[LANES];
    store_half(made, narrowed(all(x)));
    ((uint16_t *)p)[i] = made[0];
}

/* e^x: Taylor's series to the seventh power on [-ln 2 / 2, ln 2 / 2], an error of 1e-8. NaN stays NaN. */
ALWAYS vector exponential(vector x) {
    x = V(max_ps)(all(-87), V(min_ps)(all(88), x));
    vector n = rounded(x * all(1.44269504f));
    vector r = V(fnmadd_ps)(n, all(0.693359375f), x); /* ln 2 in two parts: the first is exact */
    r = V(fnmadd_ps)(n, all(-2.12194440e-4f), r);
    vector square = r * r;
    vector low = fused(square, fused(r, all(1 / 6.f), all(1 / 2.f)), r + all(1));
    vector high = fused(square, fused(r, all(1 / 5040.f), all(1 / 720.f)), fused(r, all(1 / 120.f), all(1 / 24.f)));
    vector sum = fused(square * square, high, low);
#ifdef __AVX512F__
    return _mm512_scalef_ps(sum, n);
#else
    return sum * _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
#endif
}

/* ── Threads and chunks of rows ──────────────────────────────────────────────────────────────────────────────────── */

#define PARALLEL _Pragma("omp parallel num_threads(threads) if (threads > 1)")
#define SHARE(first, last, count) \
    long first = (count) * omp_get_thread_num() / omp_get_num_threads(), \
         last = (count) * (omp_get_thread_num() + 1) / omp_get_num_threads()

static inline long chunk_rows(long N) { return N <= 64 * 64 ? 64 : (N + 63) / 64; }
static inline long chunks(long N) { return (N + chunk_rows(N) - 1) / chunk_rows(N); }
/* The chunks' number, at most 64: `room` has so many times a row of sums. */
long training_chunks(long N) { return chunks(N); }

/* Columns [first, last) of made (W) = or += the sum of rows of partial (K, stride). */
static inline void add_up(const float *partial, long K, long stride, float *made, long first, long last, int add) {
    for (long i = first; i < last; i += LANES) {
        vector sum = load(partial + i);
        for (long k = 1; k < K; k++) sum += load(partial + k * stride + i);
        if (add) sum += load(made + i);
        store(made + i, sum);
    }
}
