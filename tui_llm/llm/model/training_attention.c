/* Causal attention of a training step, forward and backward, a key head at a time: part of training.c, whose letters it uses.
   K key and value heads, each shared by H / K query heads; qkv has H + 2 K heads in a row. A token sees `window` tokens, itself included:
   blocks of keys that no query of a block sees are left out. */
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
/* The blocks of keys before its own that a block of queries sees. */
static inline long reach(long window) { return (window + BLOCK - 2) / BLOCK; }
/* The first block of keys that the block of 16 queries n sees. */
static inline long first_block(long n, long window) { return n > reach(window) ? n - reach(window) : 0; }
/* Where the block of queries n begins among a head's stored weights: it has 16 (n + 1 - first_block) keys. */
static inline long block_start(long n, long window) {
    long most = reach(window) + 1, growing = n < most ? n : most;
    return BLOCK * BLOCK * (growing * (growing + 1) / 2 + (n - growing) * most);
}
/* The numbers that a head's attention weights need. */
long attention_weights(long T, long window) { return block_start(padded(T) / BLOCK, window); }
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

/* s (16, W): `value` instead of what is before column `begin` + i of row i; begin < 16. */
ALWAYS void cut_before(float *s, long W, long begin, float value) {
    static const float columns[2 * BLOCK] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                             16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
    for (long i = 0; i < BLOCK; i++)
        for (long j = 0; j < W && j < begin + i; j += LANES) {
            __typeof__(all(0) >= all(0)) seen = load(columns + j) >= all(begin + i);
            vector x = load(s + i * W + j);
            store(s + i * W + j, (vector)((seen & (__typeof__(seen))x) | (~seen & (__typeof__(seen))all(value))));
        }
}

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

typedef struct {
    long T, H, K, D, window;
} Heads;

static inline long qkv_width(Heads a) { return (a.H + 2 * a.K) * a.D; }

/* The query heads that share key head k. The bias of the keys, unless they are rotated, adds the same to all scores of a query, so that it
   changes no weight; that of the values is added to y, since a query's weights add up to 1. */
ALWAYS void heads_forward(const void *qkv, const float *query_bias, const float *value_bias, void *y, void *weights, float *room,
                          long b, long k, Heads a, int low) {
    long T = a.T, D = a.D, P = padded(T), C = a.H * D, stride = qkv_width(a), start = b * T * stride, group = a.H / a.K;
    float *q = room, *kt = q + P * D, *out = kt + P * D, *spare = out + P * D, *s = spare + 2 * P * D;
    transpose(rows_of(qkv, start + C + k * D, stride, spare, T, D, low), kt, P, D);
    Rows v = rows_of(qkv, start + C + (a.K + k) * D, stride, spare + P * D, T, D, low);
    for (long h = k * group; h < (k + 1) * group; h++) {
        load_queries(qkv, start + h * D, stride, query_bias + h * D, 1 / sqrtf(D), q, T, D, low);
        long own = (b * a.H + h) * block_start(P / BLOCK, a.window);
        for (long n = 0; n < P / BLOCK; n++) {
            long first = first_block(n, a.window) * BLOCK, W = BLOCK * (n + 1) - first, at = own + block_start(n, a.window);
            long begin = BLOCK * n - first - (a.window - 1); /* the first column that the block's first query sees */
            float *p = low ? s : (float *)weights + at;
            rows16(q + n * BLOCK * D, D, 1, kt + first, P, p, W, W, D, 0);
            cut_before(p, W, begin, -3e38f);
            causal_softmax(p, W);
            cut_before(p, W, begin, 0);
            for (long i = 0; low && i < BLOCK * W; i += LANES) put(weights, at + i, load(p + i), 1);
            rows16(p, W, 1, v.at + first * v.stride, v.stride, out + n * BLOCK * D, D, D, W, 0);
        }
        for (long t = 0; t < T; t++)
            for (long d = 0; d < D; d += LANES)
                put(y, (b * T + t) * C + h * D + d, load(out + t * D + d) + load(value_bias + k * D + d), low);
    }
}

/* y (N, C): causal attention of qkv (N, (H + 2 K) D) + biases, query_bias (H D) and value_bias (K D); weights
   (B, H, attention_weights(T, window)). room: threads × attention_room. */
void attention_forward(const void *qkv, const float *query_bias, const float *value_bias, void *y, void *weights, float *room, long B,
                       long T, long H, long K, long D, long window, int low, int threads) {
    Heads heads = {T, H, K, D, window};
    PARALLEL {
        SHARE(first, last, B * K);
        float *mine = room + omp_get_thread_num() * attention_room(T, D);
        for (long i = first; i < last; i++)
            if (low)
                heads_forward(qkv, query_bias, value_bias, y, weights, mine, i / K, i % K, heads, 1);
            else
                heads_forward(qkv, query_bias, value_bias, y, weights, mine, i / K, i % K, heads, 0);
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

/* The query heads that share key head k. Neither the keys' bias, unless they are rotated, nor the values' has an effect: a query's
   gradients of the scores add up to 0. */
ALWAYS void heads_backward(const void *qkv, const float *query_bias, const void *weights, const void *g, void *dqkv, float *sums,
                           float *room, long b, long k, Heads a, int low) {
    long T = a.T, D = a.D, P = padded(T), C = a.H * D, all_ = P * D, stride = qkv_width(a), start = b * T * stride, group = a.H / a.K;
    float *q = room, *vt = q + all_, *dq = vt + all_, *dk = dq + all_, *dv = dk + all_, *spare = dv + all_;
    float *ds = spare + 3 * all_, *wide = ds + BLOCK * P, scale = 1 / sqrtf(D);
    Rows keys = rows_of(qkv, start + C + k * D, stride, spare, T, D, low);
    transpose(rows_of(qkv, start + C + (a.K + k) * D, stride, spare + all_, T, D, low), vt, P, D);
    sums += b * stride;
    for (long h = k * group; h < (k + 1) * group; h++) {
        load_queries(qkv, start + h * D, stride, query_bias + h * D, scale, q, T, D, low);
        Rows dy = rows_of(g, b * T * C + h * D, C, spare + 2 * all_, T, D, low);
        long own = (b * a.H + h) * block_start(P / BLOCK, a.window), last = P / BLOCK - 1;
        for (long n = last; n >= 0; n--) {
            long first = first_block(n, a.window) * BLOCK, W = BLOCK * (n + 1) - first, at = own + block_start(n, a.window);
            /* Keys from here on have sums: of an earlier query head, or of the block of queries after this one. */
            long begun = h > k * group ? 0 : n == last ? P : first_block(n + 1, a.window) * BLOCK;
            const float *p = (const float *)weights + at, *dy_ = dy.at + n * BLOCK * dy.stride;
            for (long i = 0; low && i < BLOCK * W; i += LANES) store(wide + i, get(weights, at + i, 1));
            if (low) p = wide;
            rows16(dy_, dy.stride, 1, vt + first, P, ds, W, W, D, 0);
            softmax_backward(ds, p, W);
            rows16(ds, W, 1, keys.at + first * keys.stride, keys.stride, dq + n * BLOCK * D, D, D, W, 0);
            for (long j = 0; j < W; j += BLOCK)
                if (first + j >= begun) {
                    rows16(ds + j, 1, W, q + n * BLOCK * D, D, dk + (first + j) * D, D, D, BLOCK, 1);
                    rows16(p + j, 1, W, dy_, dy.stride, dv + (first + j) * D, D, D, BLOCK, 1);
                } else {
                    rows16(ds + j, 1, W, q + n * BLOCK * D, D, dk + (first + j) * D, D, D, BLOCK, 0);
                    rows16(p + j, 1, W, dy_, dy.stride, dv + (first + j) * D, D, D, BLOCK, 0);
                }
        }
        store_head(dq, scale, dqkv, start + h * D, stride, sums + h * D, T, D, low);
    }
    store_head(dk, 1, dqkv, start + C + k * D, stride, sums + C + k * D, T, D, low);
    store_head(dv, 1, dqkv, start + C + (a.K + k) * D, stride, sums + C + (a.K + k) * D, T, D, low);
}

/* dqkv (N, (H + 2 K) D), given g (N, C), the gradient of `attention_forward`'s y; and the biases' gradient dbias ((H + 2 K) D) from column
   `skipped` on, none if it is NULL. room: threads × attention_room; sums: B × (H + 2 K) D. */
void attention_backward(const void *qkv, const float *query_bias, const void *weights, const void *g, void *dqkv, float *dbias,
                        long skipped, float *sums, float *room, long B, long T, long H, long K, long D, long window, int low,
                        int add, int threads) {
    Heads heads = {T, H, K, D, window};
    PARALLEL {
        SHARE(first, last, B * K);
        float *mine = room + omp_get_thread_num() * attention_room(T, D);
        for (long i = first; i < last; i++)
            if (low)
                heads_backward(qkv, query_bias, weights, g, dqkv, sums, mine, i / K, i % K, heads, 1);
            else
                heads_backward(qkv, query_bias, weights, g, dqkv, sums, mine, i / K, i % K, heads, 0);
        if (dbias) {
#pragma omp barrier
            long width = qkv_width(heads);
            SHARE(begin, end, (width - skipped) / LANES);
            add_up(sums, B, width, dbias, skipped + begin * LANES, skipped + end * LANES, add);
        }
    }
}
