/* Causal attention of a training step, forward and backward, a head at a time: part of training.c, whose letters it uses. */
#include "training_vectors.h"

#define BLOCK 16 /* queries or keys; row blocks of the causal triangle have whole multiples of it */
#define TILE_VECTORS (BLOCK / LANES)
#define TILE_ROWS (8 / TILE_VECTORS) /* eight sums hide the latency of two units */

/* out (TILE_ROWS, 16), rows out_i apart, = or += a b, for a(i, k) = a[i a_i + k a_k], b(k, j) = b[k b_k + j]. */
ALWAYS void tile(const float *a, long a_i, long a_k, const float *b, long b_k, float *out, long out_i, long K, int add) {
    vector sums[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 8
    for (int i = 0; i < TILE_ROWS; i++)
#pragma GCC unroll 2
        for (int j = 0; j < TILE_VECTORS; j++) sums[i][j] = add ? load(out + i * out_i + j * LANES) : all(0);
    for (long k = 0; k < K; k++)
#pragma GCC unroll 2
        for (int j = 0; j < TILE_VECTORS; j++) {
            vector right = load(b + k * b_k + j * LANES);
#pragma GCC unroll 8
            for (int i = 0; i < TILE_ROWS; i++) sums[i][j] = fused(all(a[i * a_i + k * a_k]), right, sums[i][j]);
        }
#pragma GCC unroll 8
    for (int i = 0; i < TILE_ROWS; i++)
#pragma GCC unroll 2
        for (int j = 0; j < TILE_VECTORS; j++) store(out + i * out_i + j * LANES, sums[i][j]);
}

/* 16 rows of out, `columns` wide. */
ALWAYS void rows16(const float *a, long a_i, long a_k, const float *b, long b_k, float *out, long out_i, long columns, long K,
                   int add) {
    for (long j = 0; j < columns; j += BLOCK)
        for (long i = 0; i < BLOCK; i += TILE_ROWS)
            tile(a + i * a_i, a_i, a_k, b + j, b_k, out + i * out_i + j, out_i, K, add);
}

static inline long padded(long T) { return (T + BLOCK - 1) / BLOCK * BLOCK; }
/* Where the block of 16 queries b begins among a head's stored weights: it has 16 (b + 1) keys. */
static inline long block_start(long b) { return BLOCK * BLOCK * b * (b + 1) / 2; }
/* The numbers that a head's attention weights need. */
long attention_weights(long T) { return block_start(padded(T) / BLOCK); }
/* The floats that a thread needs as room. */
long attention_room(long T, long D) { return 9 * padded(T) * D + 2 * BLOCK * padded(T); }

/* Rows of one head, `stride` apart; fp32. */
typedef struct {
    const float *at;
    long stride;
} Rows;

/* Rows t × stride + start of x: in place if they are fp32 and T is a whole number of blocks, else copied to `to`, (Tp, D), with
   zeros beyond T. */
ALWAYS Rows rows_of(const void *x, long start, long stride, float *to, long T, long D, int low) {
    if (!low && T % BLOCK == 0) return (Rows){(const float *)x + start, stride};
    for (long t = 0; t < T; t++)
        for (long d = 0; d < D; d += LANES) store(to + t * D + d, get(x, start + t * stride + d, low));
    memset(to + T * D, 0, (padded(T) - T) * D * sizeof(float));
    return (Rows){to, D};
}

/* to (Tp, D) = (x + bias) × factor; zeros beyond T. */
ALWAYS void load_queries(const void *x, long start, long stride, const float *bias, float factor, float *to, long T, long D,
                         int low) {
    for (long t = 0; t < T; t++)
        for (long d = 0; d < D; d += LANES)
            store(to + t * D + d, (get(x, start + t * stride + d, low) + load(bias + d)) * all(factor));
    memset(to + T * D, 0, (padded(T) - T) * D * sizeof(float));
}

/* to (8, ·), rows `to_stride` apart = the transpose of from (·, 8). */
ALWAYS void transpose8(const float *from, long stride, float *to, long to_stride) {
    __m256 a[8], b[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { /* rows i and i + 4 side by side */
        __m256 low = _mm256_loadu_ps(from + i * stride), high = _mm256_loadu_ps(from + (i + 4) * stride);
        a[i] = _mm256_permute2f128_ps(low, high, 0x20), a[i + 4] = _mm256_permute2f128_ps(low, high, 0x31);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]), b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
        b[i + 2] = _mm256_unpacklo_ps(a[i + 2], a[i + 3]), b[i + 3] = _mm256_unpackhi_ps(a[i + 2], a[i + 3]);
        _mm256_storeu_ps(to + i * to_stride, _mm256_shuffle_ps(b[i], b[i + 2], 0x44));
        _mm256_storeu_ps(to + (i + 1) * to_stride, _mm256_shuffle_ps(b[i], b[i + 2], 0xee));
        _mm256_storeu_ps(to + (i + 2) * to_stride, _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44));
        _mm256_storeu_ps(to + (i + 3) * to_stride, _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee));
    }
}

/* to (D, P) = the transpose of from (P, D). */
static void transpose(Rows from, float *to, long P, long D) {
    for (long i = 0; i < P; i += 8)
        for (long j = 0; j < D; j += 8) transpose8(from.at + i * from.stride + j, from.stride, to + j * P + i, P);
}

/* Added to the last 16 columns of row i: 0 up to column i, then a number below all scores. */
static const float future[2 * BLOCK] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -3e38f, -3e38f, -3e38f, -3e38f, -3e38f, -3e38f,
                                        -3e38f, -3e38f, -3e38f, -3e38f, -3e38f, -3e38f, -3e38f, -3e38f, -3e38f, -3e38f};
static const float past[2 * BLOCK] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

/* s (16, W): scores of the last 16 queries of W → causal softmax, four rows at a time. */
ALWAYS void causal_softmax(float *s, long W) {
    for (long i = 0; i < BLOCK; i += 4) {
        vector most[4], sum[4];
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) most[k] = all(-INFINITY), sum[k] = all(0);
        for (long j = 0; j < W - BLOCK; j += LANES)
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) most[k] = V(max_ps)(load(s + (i + k) * W + j), most[k]);
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            float *end = s + (i + k) * W + W - BLOCK;
            const float *mask = future + BLOCK - 1 - (i + k);
            for (long j = 0; j < BLOCK; j += LANES) most[k] = V(max_ps)(load(end + j) + load(mask + j), most[k]);
            most[k] = all(largest(most[k]));
        }
        for (long j = 0; j < W - BLOCK; j += LANES)
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
                vector e = exponential(load(s + (i + k) * W + j) - most[k]);
                store(s + (i + k) * W + j, e);
                sum[k] += e;
            }
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            float *end = s + (i + k) * W + W - BLOCK;
            const float *mask = past + BLOCK - 1 - (i + k);
            for (long j = 0; j < BLOCK; j += LANES) { /* what is cut off is at most e^88 before it is multiplied by 0 */
                vector e = exponential(load(end + j) - most[k]) * load(mask + j);
                store(end + j, e);
                sum[k] += e;
            }
            sum[k] = all(1 / total(sum[k]));
        }
        for (long j = 0; j < W; j += LANES)
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) store(s + (i + k) * W + j, load(s + (i + k) * W + j) * sum[k]);
    }
}

/* The bias of the keys adds the same to all scores of a query, so that it changes no weight; that of the values is added to
   y, since a query's weights add up to 1. */
ALWAYS void head_forward(const void *qkv, const float *bias, void *y, void *weights, float *room, long b, long h, long T,
                         long H, long D, int low) {
    long P = padded(T), C = H * D, start = b * T * 3 * C + h * D;
    float *q = room, *kt = q + P * D, *out = kt + P * D, *spare = out + P * D, *s = spare + 2 * P * D;
    load_queries(qkv, start, 3 * C, bias + h * D, 1 / sqrtf(D), q, T, D, low);
    transpose(rows_of(qkv, start + C, 3 * C, spare, T, D, low), kt, P, D);
    Rows v = rows_of(qkv, start + 2 * C, 3 * C, spare + P * D, T, D, low);
    long own = (b * H + h) * block_start(P / BLOCK);
    for (long n = 0; n < P / BLOCK; n++) {
        long W = BLOCK * (n + 1);
        float *p = low ? s : (float *)weights + own + block_start(n);
        rows16(q + n * BLOCK * D, D, 1, kt, P, p, W, W, D, 0);
        causal_softmax(p, W);
        for (long i = 0; low && i < BLOCK * W; i += LANES) put(weights, own + block_start(n) + i, load(p + i), 1);
        rows16(p, W, 1, v.at, v.stride, out + n * BLOCK * D, D, D, W, 0);
    }
    for (long t = 0; t < T; t++)
        for (long d = 0; d < D; d += LANES)
            put(y, (b * T + t) * C + h * D + d, load(out + t * D + d) + load(bias + 2 * C + h * D + d), low);
}

/* y (N, C): causal attention of qkv (N, 3 C) + bias (3 C); weights (B, H, attention_weights(T)). room: threads ×
   attention_room. */
void attention_forward(const void *qkv, const float *bias, void *y, void *weights, float *room, long B, long T, long H,
                       long D, int low, int threads) {
    PARALLEL {
        SHARE(first, last, B * H);
        float *mine = room + omp_get_thread_num() * attention_room(T, D);
        for (long i = first; i < last; i++)
            if (low)
                head_forward(qkv, bias, y, weights, mine, i / H, i % H, T, H, D, 1);
            else
                head_forward(qkv, bias, y, weights, mine, i / H, i % H, T, H, D, 0);
    }
}

/* Rows of one head of dqkv, × factor, and their column sums. */
ALWAYS void store_head(const float *from, float factor, void *to, long start, long stride, float *sums, long T, long D,
                       int low) {
    for (long d = 0; d < D; d += BLOCK) {
        vector sum[TILE_VECTORS];
        for (int j = 0; j < TILE_VECTORS; j++) sum[j] = all(0);
        for (long t = 0; t < T; t++)
#pragma GCC unroll 2
            for (int j = 0; j < TILE_VECTORS; j++) {
                vector one = load(from + t * D + d + j * LANES) * all(factor);
                put(to, start + t * stride + d + j * LANES, one, low);
                sum[j] += one;
            }
        for (int j = 0; j < TILE_VECTORS; j++) store(sums + d + j * LANES, sum[j]);
    }
}

/* ds (16, W), the gradient of weights p, becomes that of the scores. */
ALWAYS void softmax_backward(float *ds, const float *p, long W) {
    for (long i = 0; i < BLOCK; i++) {
        vector sum = all(0);
        for (long j = 0; j < W; j += LANES) sum = fused(load(ds + i * W + j), load(p + i * W + j), sum);
        vector dot = all(total(sum));
        for (long j = 0; j < W; j += LANES) store(ds + i * W + j, (load(ds + i * W + j) - dot) * load(p + i * W + j));
    }
}

/* Neither the keys' nor the values' bias has an effect: a query's gradients of the scores add up to 0. */
ALWAYS void head_backward(const void *qkv, const float *bias, const void *weights, const void *g, void *dqkv, float *sums,
                          float *room, long b, long h, long T, long H, long D, int low) {
    long P = padded(T), C = H * D, start = b * T * 3 * C + h * D, all_ = P * D;
    float *q = room, *vt = q + all_, *dq = vt + all_, *dk = dq + all_, *dv = dk + all_, *spare = dv + all_;
    float *ds = spare + 3 * all_, *wide = ds + BLOCK * P, scale = 1 / sqrtf(D);
    load_queries(qkv, start, 3 * C, bias + h * D, scale, q, T, D, low);
    Rows k = rows_of(qkv, start + C, 3 * C, spare, T, D, low);
    transpose(rows_of(qkv, start + 2 * C, 3 * C, spare + all_, T, D, low), vt, P, D);
    Rows dy = rows_of(g, b * T * C + h * D, C, spare + 2 * all_, T, D, low);
    long own = (b * H + h) * block_start(P / BLOCK), last = P / BLOCK - 1;
    for (long n = last; n >= 0; n--) { /* the last block has all keys, so it begins the sums */
        long W = BLOCK * (n + 1);
        const float *p = (const float *)weights + own + block_start(n), *dy_ = dy.at + n * BLOCK * dy.stride;
        for (long i = 0; low && i < BLOCK * W; i += LANES) store(wide + i, get(weights, own + block_start(n) + i, 1));
        if (low) p = wide;
        rows16(dy_, dy.stride, 1, vt, P, ds, W, W, D, 0);
        softmax_backward(ds, p, W);
        rows16(ds, W, 1, k.at, k.stride, dq + n * BLOCK * D, D, D, W, 0);
        for (long j = 0; j < W; j += BLOCK)
            if (n < last) {
                rows16(ds + j, 1, W, q + n * BLOCK * D, D, dk + j * D, D, D, BLOCK, 1);
                rows16(p + j, 1, W, dy_, dy.stride, dv + j * D, D, D, BLOCK, 1);
            } else {
                rows16(ds + j, 1, W, q + n * BLOCK * D, D, dk + j * D, D, D, BLOCK, 0);
                rows16(p + j, 1, W, dy_, dy.stride, dv + j * D, D, D, BLOCK, 0);
            }
    }
    sums += b * 3 * C + h * D;
    store_head(dq, scale, dqkv, start, 3 * C, sums, T, D, low);
    store_head(dk, 1, dqkv, start + C, 3 * C, sums + C, T, D, low);
    store_head(dv, 1, dqkv, start + 2 * C, 3 * C, sums + 2 * C, T, D, low);
}

/* dqkv (N, 3 C) and dbias (3 C), given g (N, C), the gradient of `attention_forward`'s y. room: threads × attention_room;
   sums: B × 3 C. */
void attention_backward(const void *qkv, const float *bias, const void *weights, const void *g, void *dqkv, float *dbias,
                        float *sums, float *room, long B, long T, long H, long D, int low, int add, int threads) {
    PARALLEL {
        SHARE(first, last, B * H);
        float *mine = room + omp_get_thread_num() * attention_room(T, D);
        for (long i = first; i < last; i++)
            if (low)
                head_backward(qkv, bias, weights, g, dqkv, sums, mine, i / H, i % H, T, H, D, 1);
            else
                head_backward(qkv, bias, weights, g, dqkv, sums, mine, i / H, i % H, T, H, D, 0);
#pragma omp barrier
        SHARE(begin, end, 3 * H * D / LANES);
        add_up(sums, B, 3 * H * D, dbias, begin * LANES, end * LANES, add);
    }
}
