/* Products of activations with a weight matrix in fp32, part of training.c. Each thread computes the rows that the passes before and
   after give it too, so that they stay in its core's cache; a library's product splits them otherwise. */
#include "training_vectors.h"

#define PANEL 16                /* columns of the result at a time */
#define PANEL_VECTORS (PANEL / LANES)
#define PANEL_ROWS (12 / PANEL_VECTORS)
#define DEPTH 256 /* of a panel, which then stays in the first cache */

/* c (rows, 16), rows M apart, = or += a panel (K, 16), for a(i, k) = a[i a_i + k a_k]. */
ALWAYS void panel_tile(const float *a, long a_i, long a_k, const float *panel, float *c, long M, const int rows, long K, int add) {
    vector sums[PANEL_ROWS][PANEL_VECTORS];
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < PANEL_VECTORS; j++) sums[i][j] = add ? load(c + i * M + j * LANES) : all(0);
    for (long k = 0; k < K; k++) {
        vector right[PANEL_VECTORS];
#pragma GCC unroll 2
        for (int j = 0; j < PANEL_VECTORS; j++) right[j] = load(panel + k * PANEL + j * LANES);
#pragma GCC unroll 12
        for (int i = 0; i < rows; i++) {
            vector left = all(a[i * a_i + k * a_k]);
#pragma GCC unroll 2
            for (int j = 0; j < PANEL_VECTORS; j++) sums[i][j] = fused(left, right[j], sums[i][j]);
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < PANEL_VECTORS; j++) store(c + i * M + j * LANES, sums[i][j]);
}

/* Columns j to j + 16 of b, (K, M) or if `transposed` (M, K), from row k0 on. */
static void pack_panel(const float *b, float *panel, long k0, long depth, long j, long K, long M, int transposed) {
    for (long k = 0; k < depth; k += 8) {
        if (transposed)
            for (long i = 0; i < PANEL; i += 8) transpose8(b + (j + i) * K + k0 + k, K, panel + k * PANEL + i, PANEL);
        else
            for (long i = 0; i < 8 * PANEL; i += LANES)
                store(panel + k * PANEL + i, load(b + (k0 + k + i / PANEL) * M + j + i % PANEL));
    }
}

/* c (N, M) = a (N, K) b, for b (K, M), or if `transposed` b (M, K); K and M multiples of 16. */
void product(const float *a, const float *b, float *c, long N, long K, long M, int transposed, int threads) {
    PARALLEL {
        SHARE(first, last, N);
        float panel[DEPTH * PANEL] __attribute__((aligned(64)));
        for (long k = 0; k < K; k += DEPTH)
            for (long j = 0; j < M; j += PANEL) {
                long depth = K - k < DEPTH ? K - k : DEPTH, n = first;
                pack_panel(b, panel, k, depth, j, K, M, transposed);
                for (; n + PANEL_ROWS <= last; n += PANEL_ROWS)
                    if (k)
                        panel_tile(a + n * K + k, K, 1, panel, c + n * M + j, M, PANEL_ROWS, depth, 1);
                    else
                        panel_tile(a + n * K + k, K, 1, panel, c + n * M + j, M, PANEL_ROWS, depth, 0);
                for (; n < last; n++) panel_tile(a + n * K + k, K, 1, panel, c + n * M + j, M, 1, depth, k > 0);
            }
    }
}

#define GROUP 96 /* rows of the result at a time: a multiple of PANEL_ROWS */

/* The next rows of c from those of g, packed one after the other for each k; returns how many. */
ALWAYS long group_rows(const float *g, const float *panel, float *c, long I, long left, long depth, int add) {
    if (left >= PANEL_ROWS)
        return panel_tile(g, 1, PANEL_ROWS, panel, c, I, PANEL_ROWS, depth, add), PANEL_ROWS;
    if (left >= 4) return panel_tile(g, 1, 4, panel, c, I, 4, depth, add), 4;
    if (left >= 2) return panel_tile(g, 1, 2, panel, c, I, 2, depth, add), 2;
    return panel_tile(g, 1, 1, panel, c, I, 1, depth, add), 1;
}

static long group_size(long left) { return left >= PANEL_ROWS ? PANEL_ROWS : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

/* The gradient of a weight (O, I) = or += gᵀ h, for g (N, O) and h (N, I). */
void weight_gradient(const float *g, const float *h, float *made, long N, long O, long I, int add, int threads) {
    PARALLEL {
        SHARE(first, last, O);
        float panel[DEPTH * PANEL] __attribute__((aligned(64))), packed[DEPTH * GROUP] __attribute__((aligned(64)));
        for (long n = 0; n < N; n += DEPTH)
            for (long o = first; o < last; o += GROUP) {
                long depth = N - n < DEPTH ? N - n : DEPTH, rows = last - o < GROUP ? last - o : GROUP;
                int more = add || n;
                for (long i = 0, size; i < rows; i += size) {
                    size = group_size(rows - i);
                    if (size == PANEL_ROWS)
                        for (long k = 0; k < depth; k++)
                            memcpy(packed + i * depth + k * PANEL_ROWS, g + (n + k) * O + o + i, PANEL_ROWS * sizeof(float));
                    else
                        for (long k = 0; k < depth; k++)
                            for (long r = 0; r < size; r++) packed[i * depth + k * size + r] = g[(n + k) * O + o + i + r];
                }
                for (long j = 0; j < I; j += PANEL) {
                    for (long k = 0; k < depth; k++)
                        for (long i = 0; i < PANEL; i += LANES) store(panel + k * PANEL + i, load(h + (n + k) * I + j + i));
                    for (long i = 0; i < rows;)
                        if (more)
                            i += group_rows(packed + i * depth, panel, made + (o + i) * I + j, I, rows - i, depth, 1);
                        else
                            i += group_rows(packed + i * depth, panel, made + (o + i) * I + j, I, rows - i, depth, 0);
                }
            }
    }
}
