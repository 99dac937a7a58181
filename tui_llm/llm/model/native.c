/* Products of few rows with a weight matrix, for x86-64 with AVX2, FMA and F16C. `native.py` compiles this file, which
   includes gemm.c and prompt.c.

   x (T, C), weight (O, C), bias (O) or NULL, y (T, O); fp32 unless said otherwise, rows contiguous. With few rows the
   time is that of reading the weights from memory, so each is read once, in the order in which it lies there, and
   prefetched. `threads`: OpenMP threads. */
#include <immintrin.h>
#include <math.h>
#include <omp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BLOCK 32 /* int8 weights that share a scale, and inputs that do */

static inline float total(__m256 v) {
    __m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps(a, a, 1)));
}

static inline void ahead(const void *p, size_t bytes) { _mm_prefetch((const char *)p + bytes, _MM_HINT_T0); }

static float dot_fp32(const float *w, const float *x, long C) {
    __m256 a = _mm256_setzero_ps(), b = a, c = a, d = a;
    long i = 0;
    for (; i + 32 <= C; i += 32) {
        ahead(w + i, 2048);
        ahead(w + i + 16, 2048);
        a = _mm256_fmadd_ps(_mm256_loadu_ps(w + i), _mm256_loadu_ps(x + i), a);
        b = _mm256_fmadd_ps(_mm256_loadu_ps(w + i + 8), _mm256_loadu_ps(x + i + 8), b);
        c = _mm256_fmadd_ps(_mm256_loadu_ps(w + i + 16), _mm256_loadu_ps(x + i + 16), c);
        d = _mm256_fmadd_ps(_mm256_loadu_ps(w + i + 24), _mm256_loadu_ps(x + i + 24), d);
    }
    float sum = total(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d)));
    for (; i < C; i++) sum += w[i] * x[i];
    return sum;
}

static inline __m256 widened(const uint16_t *half) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)half)); }

static float dot_fp16(const uint16_t *w, const float *x, long C) {
    __m256 a = _mm256_setzero_ps(), b = a, c = a, d = a;
    long i = 0;
    for (; i + 32 <= C; i += 32) {
        ahead(w + i, 1536);
        a = _mm256_fmadd_ps(widened(w + i), _mm256_loadu_ps(x + i), a);
        b = _mm256_fmadd_ps(widened(w + i + 8), _mm256_loadu_ps(x + i + 8), b);
        c = _mm256_fmadd_ps(widened(w + i + 16), _mm256_loadu_ps(x + i + 16), c);
        d = _mm256_fmadd_ps(widened(w + i + 24), _mm256_loadu_ps(x + i + 24), d);
    }
    float sum = total(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d)));
    for (; i < C; i++) sum += _cvtsh_ss(w[i]) * x[i];
    return sum;
}

void linear_fp32(const float *w, const float *bias, const float *x, float *y, long T, long O, long C, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (long o = 0; o < O; o++)
        for (long t = 0; t < T; t++) y[t * O + o] = dot_fp32(w + o * C, x + t * C, C) + (bias ? bias[o] : 0);
}

void linear_fp16(const uint16_t *w, const float *bias, const float *x, float *y, long T, long O, long C, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (long o = 0; o < O; o++)
        for (long t = 0; t < T; t++) y[t * O + o] = dot_fp16(w + o * C, x + t * C, C) + (bias ? bias[o] : 0);
}

/* The products of 32 weights with 32 inputs, added up in 8 parts. 4 × 127 × 32,767 fits in 32 bits. */
static inline __m256 block_sums(const int8_t *w, const int16_t *x) {
    __m256i low = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)w));
    __m256i high = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(w + 16)));
    low = _mm256_madd_epi16(low, _mm256_loadu_si256((const __m256i *)x));
    high = _mm256_madd_epi16(high, _mm256_loadu_si256((const __m256i *)(x + 16)));
    return _mm256_cvtepi32_ps(_mm256_add_epi32(low, high));
}

static inline float dot_int8(const int8_t *w, const uint16_t *scales, const int16_t *x, const float *x_scales, long blocks) {
    __m256 a = _mm256_setzero_ps(), b = a;
    long i = 0;
    for (; i + 8 <= blocks; i += 8) {
        float s[8];
        _mm256_storeu_ps(s, _mm256_mul_ps(widened(scales + i), _mm256_loadu_ps(x_scales + i)));
        for (int k = 0; k < 8; k += 2) {
            const int8_t *p = w + (i + k) * BLOCK;
            const int16_t *q = x + (i + k) * BLOCK;
            ahead(p, 1024);
            a = _mm256_fmadd_ps(block_sums(p, q), _mm256_set1_ps(s[k]), a);
            b = _mm256_fmadd_ps(block_sums(p + BLOCK, q + BLOCK), _mm256_set1_ps(s[k + 1]), b);
        }
    }
    for (; i < blocks; i++) {
        __m256 s = _mm256_set1_ps(_cvtsh_ss(scales[i]) * x_scales[i]);
        a = _mm256_fmadd_ps(block_sums(w + i * BLOCK, x + i * BLOCK), s, a);
    }
    return total(_mm256_add_ps(a, b));
}

static inline __m256 absolute(__m256 v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }

static inline float largest(__m256 v) {
    __m128 a = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps(a, a, 1)));
}

/* A block of x from i on, with zeros beyond C. Returns its largest absolute value. */
static inline float load_block(const float *x, long i, long C, __m256 v[4]) {
    float spare[BLOCK];
    if (i + BLOCK > C) {
        for (int k = 0; k < BLOCK; k++) spare[k] = i + k < C ? x[i + k] : 0;
        x = spare, i = 0;
    }
    for (int k = 0; k < 4; k++) v[k] = _mm256_loadu_ps(x + i + 8 * k);
    return largest(_mm256_max_ps(_mm256_max_ps(absolute(v[0]), absolute(v[1])),
                                 _mm256_max_ps(absolute(v[2]), absolute(v[3]))));
}

/* Four vectors of whole numbers, saturated to 16 bits, in their order. */
static inline void store_int16(int16_t *to, __m256i a, __m256i b) {
    _mm256_storeu_si256((__m256i *)to, _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8));
}

/* The inputs in 16 bits, and a scale for each block of them. `rounded` has T × P numbers, P ≥ C a multiple of 32. */
static void round_inputs(const float *x, int16_t *rounded, float *scales, long T, long C, long P) {
    for (long t = 0; t < T; t++)
        for (long i = 0; i < P; i += BLOCK) {
            __m256 v[4];
            float most = load_block(x + t * C, i, C, v);
            __m256 inverse = _mm256_set1_ps(most > 0 ? 32767 / most : 0);
            scales[(t * P + i) / BLOCK] = most / 32767;
            for (int k = 0; k < 4; k += 2)
                store_int16(rounded + t * P + i + 8 * k, _mm256_cvtps_epi32(_mm256_mul_ps(v[k], inverse)),
                            _mm256_cvtps_epi32(_mm256_mul_ps(v[k + 1], inverse)));
        }
}

/* w (O, P) int8, scales (O, P / 32) fp16; `rounded` (T × P int16) and `x_scales` (T × P / 32) are room to work in. */
void linear_int8(const int8_t *w, const uint16_t *scales, const float *bias, const float *x, float *y, int16_t *rounded,
                 float *x_scales, long T, long O, long C, long P, int threads) {
    long blocks = P / BLOCK;
    round_inputs(x, rounded, x_scales, T, C, P);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (long o = 0; o < O; o++)
        for (long t = 0; t < T; t++)
            y[t * O + o] = dot_int8(w + o * P, scales + o * blocks, rounded + t * P, x_scales + t * blocks, blocks) +
                           (bias ? bias[o] : 0);
}

static inline __m256 rounded_int8(__m256 v, __m256 inverse) {
    v = _mm256_round_ps(_mm256_mul_ps(v, inverse), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return _mm256_max_ps(_mm256_min_ps(v, _mm256_set1_ps(127)), _mm256_set1_ps(-127));
}

/* Of nine scales for a block, from 0.92 to 1.04 of the one that maps its largest weight to 127, the one with the least
   squared error; `inverse` is 1 / scale. */
static uint16_t best_scale(const __m256 v[4], float most, float *inverse) {
    float least = INFINITY;
    uint16_t chosen = 0;
    *inverse = 0;
    for (int try = 0; try < 9 && most > 0; try++) {
        float wanted = most / 127 * (0.92f + 0.015f * try);
        uint16_t half = _cvtss_sh(wanted < 65504 ? wanted : 65504, 0);
        float scale = _cvtsh_ss(half);
        if (scale == 0) continue;
        __m256 sum = _mm256_setzero_ps(), down = _mm256_set1_ps(1 / scale), up = _mm256_set1_ps(scale);
        for (int k = 0; k < 4; k++) {
            __m256 error = _mm256_fmsub_ps(rounded_int8(v[k], down), up, v[k]);
            sum = _mm256_fmadd_ps(error, error, sum);
        }
        float error = total(sum);
        if (error < least) least = error, chosen = half, *inverse = 1 / scale;
    }
    return chosen;
}

/* The int8 weights (O, P) and fp16 scales (O, P / 32) of w (O, C). */
void pack_int8(const float *w, int8_t *packed, uint16_t *scales, long O, long C, long P, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (long o = 0; o < O; o++)
        for (long i = 0; i < P; i += BLOCK) {
            __m256 v[4];
            float most = load_block(w + o * C, i, C, v), inverse;
            int16_t whole[BLOCK];
            scales[(o * P + i) / BLOCK] = best_scale(v, most, &inverse);
            for (int k = 0; k < 4; k += 2)
                store_int16(whole + 8 * k, _mm256_cvtps_epi32(rounded_int8(v[k], _mm256_set1_ps(inverse))),
                            _mm256_cvtps_epi32(rounded_int8(v[k + 1], _mm256_set1_ps(inverse))));
            for (int k = 0; k < BLOCK; k++) packed[o * P + i + k] = (int8_t)whole[k];
        }
}

/* Rows `first` to `first` + `count` of the packed weights, in fp32 (count, C). */
void unpack_int8(const int8_t *packed, const uint16_t *scales, float *w, long first, long count, long C, long P,
                 int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (long o = 0; o < count; o++)
        for (long i = 0; i < C; i += BLOCK) {
            const int8_t *from = packed + (first + o) * P + i;
            float spare[BLOCK], *to = i + BLOCK <= C ? w + o * C + i : spare;
            __m256 scale = _mm256_set1_ps(_cvtsh_ss(scales[((first + o) * P + i) / BLOCK]));
            for (int k = 0; k < BLOCK; k += 8) {
                __m256i whole = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(from + k)));
                _mm256_storeu_ps(to + k, _mm256_mul_ps(_mm256_cvtepi32_ps(whole), scale));
            }
            for (long k = 0; to == spare && i + k < C; k++) w[o * C + i + k] = spare[k];
        }
}

/* ── One token through all blocks ──────────────────────────────────────────────────────────────────────────────────
   The same operations as `model.GPT.features`, in one parallel region: between the products, calls from Python and the
   start of threads cost as much as half of the products. Every thread normalizes and rounds the inputs for itself, which
   is cheaper than to wait for another. C width, H heads, D = C / H. */

enum { FP32, FP16, INT8 };

typedef struct {
    const void *weight;     /* (O, C), in int8 (O, P) */
    const uint16_t *scales; /* int8 only */
    const float *bias;
    long outputs, inputs;
} Linear;

typedef struct {
    const float *weight, *bias;
} Norm;

typedef struct {
    Norm norm1, norm2;
    Linear qkv, out, up, down;
    float *keys, *values; /* (H, context, D) */
} Block;

typedef struct {
    const Block *blocks;
    Norm norm;
    long layers, width, hidden, heads, context;
    float epsilon;
    int format, exact_gelu;
} Model;

static inline long padded(long C) { return (C + BLOCK - 1) / BLOCK * BLOCK; }

static long widest(const Model *m) { return padded(m->width > m->hidden ? m->width : m->hidden); }

/* The floats that `step` needs as room: x, q k v, the heads' outputs, the hidden layer; and for each thread its scores,
   inputs, and these in 16 bits with their scales. */
long step_room(const Model *m, int threads) {
    return 6 * padded(m->width) + padded(m->hidden) + threads * (padded(m->context) + 3 * widest(m));
}

/* Taylor's series to the seventh power on [-ln 2 / 2, ln 2 / 2], an error of 1e-8. NaN stays NaN. */
static inline __m256 exponential(__m256 x) {
    x = _mm256_max_ps(_mm256_set1_ps(-87), _mm256_min_ps(_mm256_set1_ps(88), x));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x); /* ln 2 in two parts: the first is exact */
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 sum = _mm256_set1_ps(1 / 5040.f);
    static const float terms[] = {1 / 720.f, 1 / 120.f, 1 / 24.f, 1 / 6.f, 1 / 2.f, 1, 1};
    for (int k = 0; k < 7; k++) sum = _mm256_fmadd_ps(sum, r, _mm256_set1_ps(terms[k]));
    __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(sum, _mm256_castsi256_ps(power));
}

/* tanh's GELU: 0.5 v (1 + tanh u) = v / (1 + exp(-2 u)), u = √(2 / π) (v + 0.044715 v³). */
static inline __m256 gelu8(__m256 v) {
    __m256 cubic = _mm256_fmadd_ps(_mm256_mul_ps(v, v), _mm256_set1_ps(0.044715f), _mm256_set1_ps(1));
    __m256 u = _mm256_mul_ps(_mm256_mul_ps(v, cubic), _mm256_set1_ps(-2 * 0.7978845608f));
    return _mm256_div_ps(v, _mm256_add_ps(_mm256_set1_ps(1), exponential(u)));
}

static void gelu(float *v, long count, int exact) {
    long i = 0;
    for (; !exact && i + 8 <= count; i += 8) _mm256_storeu_ps(v + i, gelu8(_mm256_loadu_ps(v + i)));
    for (; !exact && i < count; i++) v[i] = _mm256_cvtss_f32(gelu8(_mm256_set1_ps(v[i])));
    for (; i < count; i++) v[i] = 0.5f * v[i] * (1 + erff(v[i] * 0.70710678f));
}

static void layer_norm(const float *x, Norm norm, float *y, long C, float epsilon) {
    float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (long i = 0; i < C; i++) sum += x[i];
    float mean = sum / C;
#pragma omp simd reduction(+ : squares)
    for (long i = 0; i < C; i++) squares += (x[i] - mean) * (x[i] - mean);
    float scale = 1 / sqrtf(squares / C + epsilon);
    for (long i = 0; i < C; i++) y[i] = (x[i] - mean) * scale * norm.weight[i] + norm.bias[i];
}

/* One query (D) and `count` keys and values (count, D) → y (D); `scores` has room for 8 more. */
static void attend(const float *q, const float *keys, const float *values, float *scores, float *y, long count, long D) {
    float most = -INFINITY, scale = 1 / sqrtf(D), sum = 0;
    for (long i = 0; i < count; i++) {
        float score = 0;
#pragma omp simd reduction(+ : score)
        for (long d = 0; d < D; d++) score += q[d] * keys[i * D + d];
        scores[i] = score * scale;
        if (scores[i] > most) most = scores[i];
    }
    for (long i = count; i % 8; i++) scores[i] = 0; /* computed with the others, not added */
    for (long i = 0; i < count; i += 8)
        _mm256_storeu_ps(scores + i, exponential(_mm256_sub_ps(_mm256_loadu_ps(scores + i), _mm256_set1_ps(most))));
#pragma omp simd reduction(+ : sum)
    for (long i = 0; i < count; i++) sum += scores[i];
    for (long d = 0; d < D; d++) y[d] = 0;
    for (long i = 0; i < count; i++) {
        float p = scores[i] / sum;
        for (long d = 0; d < D; d++) y[d] += p * values[i * D + d];
    }
}

/* What one thread has: outputs [first, last) of y = Wx + b; `add`: y += Wx + b. */
static void product(const Linear *l, int format, const float *x, float *own, float *y, int add, int me, int all) {
    long C = l->inputs, P = padded(C), first = l->outputs * me / all, last = l->outputs * (me + 1) / all;
    float *x_scales = own;
    int16_t *rounded = (int16_t *)(own + P);
    if (format == INT8) round_inputs(x, rounded, x_scales, 1, C, P);
    for (long o = first; o < last; o++) {
        float sum = l->bias[o];
        if (format == INT8)
            sum += dot_int8((const int8_t *)l->weight + o * P, l->scales + o * (P / BLOCK), rounded, x_scales, P / BLOCK);
        else if (format == FP16)
            sum += dot_fp16((const uint16_t *)l->weight + o * C, x, C);
        else
            sum += dot_fp32((const float *)l->weight + o * C, x, C);
        y[o] = add ? y[o] + sum : sum;
    }
}

/* x: the embeddings (C) of the token and its position, `past`; y: the features (C). Stores its keys and values. */
void step(const Model *m, const float *embedding, float *y, float *room, long past, int threads) {
    long C = m->width, W = padded(C), H = m->heads, D = C / H, wide = widest(m);
    float *x = room, *qkv = x + W, *mixed = qkv + 4 * W, *hidden = mixed + W, *each = hidden + padded(m->hidden);
    memcpy(x, embedding, C * sizeof(float));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        int me = omp_get_thread_num(), all = omp_get_num_threads();
        float *scores = each + me * (padded(m->context) + 3 * wide), *input = scores + padded(m->context), *own = input + wide;
        for (long layer = 0; layer < m->layers; layer++) {
            const Block *b = m->blocks + layer;
            layer_norm(x, b->norm1, input, C, m->epsilon);
            product(&b->qkv, m->format, input, own, qkv, 0, me, all);
#pragma omp barrier
            for (long h = H * me / all; h < H * (me + 1) / all; h++) {
                float *keys = b->keys + h * m->context * D, *values = b->values + h * m->context * D;
                memcpy(keys + past * D, qkv + C + h * D, D * sizeof(float));
                memcpy(values + past * D, qkv + 2 * C + h * D, D * sizeof(float));
                attend(qkv + h * D, keys, values, scores, mixed + h * D, past + 1, D);
            }
#pragma omp barrier
            product(&b->out, m->format, mixed, own, x, 1, me, all);
#pragma omp barrier
            layer_norm(x, b->norm2, input, C, m->epsilon);
            product(&b->up, m->format, input, own, hidden, 0, me, all);
            long first = m->hidden * me / all;
            gelu(hidden + first, m->hidden * (me + 1) / all - first, m->exact_gelu);
#pragma omp barrier
            product(&b->down, m->format, hidden, own, x, 1, me, all);
#pragma omp barrier
        }
    }
    layer_norm(x, m->norm, y, C, m->epsilon);
}

#include "gemm.c"
#include "prompt.c"
