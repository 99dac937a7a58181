/* Many tokens through all blocks, as `step` takes one, with the products of gemm.c. Included by native.c.

   T new tokens after `past` ones. Attention is two products for each head and QUERIES tokens, of the queries with the
   keys and of the probabilities with the values. */

#define QUERIES 96

static const Next NOTHING = {NULL, 0, 1, 0};

typedef struct {
    const float *q;             /* (rows, D), divided by √D */
    const float *keys, *values; /* (…, D) */
    float *y;                   /* `y_stride` apart */
    long rows, before, D, y_stride; /* `before`: tokens before the first query's */
} Head;

/* Numbers in a row of scores: whole panels, and an odd number of cache lines, so that rows don't share a cache set. */
static inline long score_stride(long count) { return (count + 31) / 32 * 32 + 16; }

/* scores (rows, S) = q · kᵀ; not defined for keys after the query's own token. */
static void score(const Head *a, float *scores, long S, int wide) {
    _Alignas(64) float weights[TILE / sizeof(float)];
    long panel = wide ? 32 : 16, most = TILE / sizeof(float) / panel, count = a->before + a->rows;
    memset(scores, 0, a->rows * S * sizeof *scores);
    for (long key = 0; key < count; key += panel) {
        long first = key > a->before ? key - a->before : 0; /* the first query that sees one of these keys */
        for (long from = 0; from < a->D; from += most) {
            long deep = a->D - from < most ? a->D - from : most;
            widen(a->keys, FP32, weights, key, count, from, deep, a->D, panel);
            Tile tile = {weights, NULL, a->q + first * a->D + from, NULL, scores + first * S + key, deep, a->D, S};
            multiply(tile, NOTHING, wide ? fp32_avx512_rows : fp32_avx2_rows, sizeof(float), a->rows - first, panel, panel);
        }
    }
}

/* Scores (S) to probabilities of the first `count`; the others become 0. */
static void softmax(float *scores, long count, long S) {
    __m256 most = _mm256_set1_ps(-INFINITY), sum = _mm256_setzero_ps();
    for (long i = count; i % 8; i++) scores[i] = -INFINITY;
    for (long i = 0; i < count; i += 8) most = _mm256_max_ps(_mm256_loadu_ps(scores + i), most);
    for (long lanes = 4; lanes; lanes /= 2) { /* the largest, in every lane */
        __m256i order = _mm256_xor_si256(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(lanes));
        most = _mm256_max_ps(most, _mm256_permutevar8x32_ps(most, order));
    }
    for (long i = 0; i < count; i += 8)
        _mm256_storeu_ps(scores + i, exponential(_mm256_sub_ps(_mm256_loadu_ps(scores + i), most)));
    memset(scores + count, 0, (S - count) * sizeof *scores);
    for (long i = 0; i < count; i += 8) sum = _mm256_add_ps(sum, _mm256_loadu_ps(scores + i));
    __m256 inverse = _mm256_set1_ps(1 / total(sum));
    for (long i = 0; i < count; i += 8) _mm256_storeu_ps(scores + i, _mm256_mul_ps(_mm256_loadu_ps(scores + i), inverse));
}

/* y (rows, D) = probabilities (rows, S) · values. */
static void mix(const Head *a, const float *scores, long S, int wide) {
    _Alignas(64) float weights[TILE / sizeof(float)];
    long panel = wide ? 32 : 16, most = TILE / sizeof(float) / panel, count = a->before + a->rows;
    for (long d = 0; d < a->D; d += panel) {
        long outputs = a->D - d < panel ? a->D - d : panel;
        begin(NULL, a->y + d, a->rows, a->y_stride, outputs, ALONE);
        for (long from = 0; from < count; from += most) {
            long deep = count - from < most ? count - from : most, first = from > a->before ? from - a->before : 0;
            if (outputs < panel) memset(weights, 0, sizeof weights);
            for (long k = 0; k < deep; k++)
                memcpy(weights + k * panel, a->values + (from + k) * a->D + d, outputs * sizeof(float));
            Tile tile = {weights, NULL, scores + first * S + from, NULL, a->y + first * a->y_stride + d, deep, S, a->y_stride};
            multiply(tile, NOTHING, wide ? fp32_avx512_rows : fp32_avx2_rows, sizeof(float), a->rows - first, outputs, panel);
        }
    }
}

/* All heads of a block, in a parallel region: qkv (T, 3 C) → y (T, C). Stores the keys and values. */
static void attend_all(const Model *m, const Block *b, const float *qkv, float *y, float *scores, long past, long T, int wide) {
    long C = m->width, H = m->heads, D = C / H, parts = (T + QUERIES - 1) / QUERIES;
#pragma omp for schedule(static)
    for (long t = 0; t < T; t++)
        for (long h = 0; h < H; h++) {
            long at = (h * m->context + past + t) * D;
            memcpy(b->keys + at, qkv + t * 3 * C + C + h * D, D * sizeof(float));
            memcpy(b->values + at, qkv + t * 3 * C + 2 * C + h * D, D * sizeof(float));
        }
#pragma omp for schedule(dynamic)
    for (long part = 0; part < parts * H; part++) { /* the longest first */
        long h = part % H, t = (parts - 1 - part / H) * QUERIES, rows = T - t < QUERIES ? T - t : QUERIES;
        long S = score_stride(past + t + rows), head = h * m->context * D;
        float *q = scores + rows * S, scale = 1 / sqrtf(D);
        for (long r = 0; r < rows; r++)
            for (long d = 0; d < D; d++) q[r * D + d] = qkv[(t + r) * 3 * C + h * D + d] * scale;
        Head a = {q, b->keys + head, b->values + head, y + t * C + h * D, rows, past + t, D, C};
        score(&a, scores, S, wide);
        for (long r = 0; r < rows; r++) softmax(scores + r * S, past + t + r + 1, S);
        mix(&a, scores, S, wide);
    }
}

static void normalize_all(const float *x, Norm norm, float *y, long T, long C, float epsilon) {
#pragma omp for schedule(static)
    for (long t = 0; t < T; t++) layer_norm(x + t * C, norm, y + t * C, C, epsilon);
}

static long rounded_up(long T) { return (T + HEIGHT - 1) / HEIGHT * HEIGHT; }

/* The floats that `prompt` needs as room: x, the inputs of a product, q k v, the hidden layer, these in 16 bits with their
   scales, and for each thread its scores and queries. */
static long own_room(const Model *m, long past, long T) {
    return (T < QUERIES ? T : QUERIES) * (score_stride(past + T) + m->width / m->heads);
}

long prompt_room(const Model *m, long past, long T, int threads) {
    return T * (5 * m->width + m->hidden) + rounded_up(T) * (widest(m) / 2 + 1) + threads * own_room(m, past, T);
}

/* x: the embeddings (T, C) of the tokens and their positions, from `past` on; y: the features (T, C). Stores their keys
   and values. tanh's GELU. */
void prompt(const Model *m, const float *embeddings, float *y, float *room, long past, long T, int avx512, int threads) {
    long C = m->width;
    float *x = room, *input = x + T * C, *qkv = input + T * C, *hidden = qkv + 3 * T * C, *end = hidden + T * m->hidden;
    Rounded rounded = {(int16_t *)(end + rounded_up(T)), end};
    float *each = end + rounded_up(T) * (widest(m) / 2 + 1);
    int wide = avx512 && has_avx512(), format = m->format;
    memcpy(x, embeddings, T * C * sizeof *x);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *scores = each + omp_get_thread_num() * own_room(m, past, T);
        for (long layer = 0; layer < m->layers; layer++) {
            const Block *b = m->blocks + layer;
            normalize_all(x, b->norm1, input, T, C, m->epsilon);
            multiply_all(&b->qkv, format, input, qkv, rounded, T, ALONE, wide);
            attend_all(m, b, qkv, input, scores, past, T, wide);
            multiply_all(&b->out, format, input, x, rounded, T, ADDED, wide);
            normalize_all(x, b->norm2, input, T, C, m->epsilon);
            multiply_all(&b->up, format, input, hidden, rounded, T, GELU, wide);
            multiply_all(&b->down, format, hidden, x, rounded, T, ADDED, wide);
        }
        normalize_all(x, m->norm, y, T, C, m->epsilon);
    }
}
