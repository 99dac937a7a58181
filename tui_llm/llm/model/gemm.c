/* Products of many rows with a weight matrix, for x86-64 with AVX2, FMA and F16C, and for AVX-512 with VNNI. Included by
   native.c.

   x (T, C), weight (O, C), bias (O) or NULL, y (T, O). A thread takes a panel of the outputs at a time, widens a tile of
   its weights into the first-level cache, and multiplies all rows of x by it, six at a time, with the sums in registers.

   int8: the weights become 16-bit integers, and so do the inputs, each row with one scale. A block of 32 weights shares a
   scale, so 32 products are added up in 32 bits (32 × 127 × 32,767 fits), and the blocks' sums in fp32. An instruction
   multiplies twice as many 16-bit numbers as fp32 ones. An output is off by at most Σ|w| · max|x| / 65,534 for the
   rounding of x, besides fp32's own rounding. */

#define HEIGHT 6 /* rows of x at a time */
#define WIDEST 32 /* outputs of a panel: 32 with AVX-512, 16 with AVX2 */
#define TILE 16384 /* bytes of a tile's weights: half of a first-level cache */

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vnni"), always_inline)) static inline
#define AVX2 __attribute__((always_inline)) static inline
#define UNROLLED _Pragma("GCC unroll 16")
/* Row after row: AVX2's 16 registers hold the sums of six, but not six broadcast inputs besides. */
#define IN_ORDER(sums) __asm__ volatile("" : "+x"((sums)[0]), "+x"((sums)[1]))
/* The same, in place: GCC would move the sum between two registers. */
#define ADD_TO(sum, v) __asm__ volatile("vpaddd %1, %0, %0" : "+x"(sum) : "x"(v))

/* A tile of the weights and what it is multiplied by: `rows` rows of x (`x_stride` apart), or of its 16-bit form with
   the rows' scales, added to y (`y_stride` apart). `weights`: `deep` × panel, two consecutive inputs of an output side by
   side if int8. `scales`: blocks × panel. */
typedef struct {
    const void *weights;
    const float *scales;
    const void *x;
    const float *x_scales;
    float *y;
    long deep, x_stride, y_stride;
} Tile;

static inline int two(const int16_t *x) {
    int both;
    memcpy(&both, x, sizeof both);
    return both;
}

AVX512 void int8_avx512(const Tile *t, const int rows) {
    const int16_t *w = t->weights, *x = t->x;
    const float *scales = t->scales;
    __m512 sums[HEIGHT][2];
    UNROLLED for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    for (long block = 0; block < t->deep / BLOCK; block++) {
        __m512i parts[HEIGHT][2];
        UNROLLED for (int r = 0; r < rows; r++) parts[r][0] = parts[r][1] = _mm512_setzero_si512();
        UNROLLED for (int k = 0; k < BLOCK; k += 2) {
            __m512i low = _mm512_load_si512(w), high = _mm512_load_si512(w + 32);
            w += 64;
            UNROLLED for (int r = 0; r < rows; r++) {
                __m512i both = _mm512_set1_epi32(two(x + HEIGHT * k + 2 * r));
                parts[r][0] = _mm512_dpwssd_epi32(parts[r][0], low, both);
                parts[r][1] = _mm512_dpwssd_epi32(parts[r][1], high, both);
            }
        }
        __m512 low = _mm512_load_ps(scales), high = _mm512_load_ps(scales + 16);
        UNROLLED for (int r = 0; r < rows; r++) {
            sums[r][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(parts[r][0]), low, sums[r][0]);
            sums[r][1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(parts[r][1]), high, sums[r][1]);
        }
        x += HEIGHT * BLOCK, scales += 32;
    }
    UNROLLED for (int r = 0; r < rows; r++) {
        float *y = t->y + r * t->y_stride;
        __m512 scale = _mm512_set1_ps(t->x_scales[r]);
        _mm512_storeu_ps(y, _mm512_fmadd_ps(sums[r][0], scale, _mm512_loadu_ps(y)));
        _mm512_storeu_ps(y + 16, _mm512_fmadd_ps(sums[r][1], scale, _mm512_loadu_ps(y + 16)));
    }
}

/* With half as many registers the fp32 sums are kept in memory. */
AVX2 void int8_avx2(const Tile *t, const int rows) {
    const int16_t *w = t->weights, *x = t->x;
    const float *scales = t->scales;
    __m256 sums[HEIGHT][2];
    for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = _mm256_setzero_ps();
    for (long block = 0; block < t->deep / BLOCK; block++) {
        __m256i parts[HEIGHT][2];
        UNROLLED for (int k = 0; k < BLOCK; k += 2) {
            __m256i low = _mm256_load_si256((const __m256i *)w), high = _mm256_load_si256((const __m256i *)(w + 16));
            w += 32;
            UNROLLED for (int r = 0; r < rows; r++) {
                __m256i both = _mm256_set1_epi32(two(x + HEIGHT * k + 2 * r));
                if (k) {
                    ADD_TO(parts[r][0], _mm256_madd_epi16(low, both));
                    ADD_TO(parts[r][1], _mm256_madd_epi16(high, both));
                } else {
                    parts[r][0] = _mm256_madd_epi16(low, both);
                    parts[r][1] = _mm256_madd_epi16(high, both);
                }
            }
        }
        __m256 low = _mm256_load_ps(scales), high = _mm256_load_ps(scales + 8);
        UNROLLED for (int r = 0; r < rows; r++) {
            sums[r][0] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(parts[r][0]), low, sums[r][0]);
            sums[r][1] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(parts[r][1]), high, sums[r][1]);
        }
        x += HEIGHT * BLOCK, scales += 16;
    }
    for (int r = 0; r < rows; r++) {
        float *y = t->y + r * t->y_stride;
        __m256 scale = _mm256_set1_ps(t->x_scales[r]);
        _mm256_storeu_ps(y, _mm256_fmadd_ps(sums[r][0], scale, _mm256_loadu_ps(y)));
        _mm256_storeu_ps(y + 8, _mm256_fmadd_ps(sums[r][1], scale, _mm256_loadu_ps(y + 8)));
    }
}

AVX512 void fp32_avx512(const Tile *t, const int rows) {
    const float *w = t->weights, *x = t->x;
    __m512 sums[HEIGHT][2];
    UNROLLED for (int r = 0; r < rows; r++) {
        sums[r][0] = _mm512_loadu_ps(t->y + r * t->y_stride);
        sums[r][1] = _mm512_loadu_ps(t->y + r * t->y_stride + 16);
    }
    for (long k = 0; k < t->deep; k++) {
        __m512 low = _mm512_load_ps(w), high = _mm512_load_ps(w + 16);
        w += 32;
        UNROLLED for (int r = 0; r < rows; r++) {
            __m512 one = _mm512_set1_ps(x[r * t->x_stride + k]);
            sums[r][0] = _mm512_fmadd_ps(low, one, sums[r][0]);
            sums[r][1] = _mm512_fmadd_ps(high, one, sums[r][1]);
        }
    }
    UNROLLED for (int r = 0; r < rows; r++) {
        _mm512_storeu_ps(t->y + r * t->y_stride, sums[r][0]);
        _mm512_storeu_ps(t->y + r * t->y_stride + 16, sums[r][1]);
    }
}

AVX2 void fp32_avx2(const Tile *t, const int rows) {
    const float *w = t->weights, *x = t->x;
    __m256 sums[HEIGHT][2];
    UNROLLED for (int r = 0; r < rows; r++) {
        sums[r][0] = _mm256_loadu_ps(t->y + r * t->y_stride);
        sums[r][1] = _mm256_loadu_ps(t->y + r * t->y_stride + 8);
    }
    for (long k = 0; k < t->deep; k++) {
        __m256 low = _mm256_load_ps(w), high = _mm256_load_ps(w + 8);
        w += 16;
        UNROLLED for (int r = 0; r < rows; r++) {
            __m256 one = _mm256_set1_ps(x[r * t->x_stride + k]);
            sums[r][0] = _mm256_fmadd_ps(low, one, sums[r][0]);
            sums[r][1] = _mm256_fmadd_ps(high, one, sums[r][1]);
            IN_ORDER(sums[r]);
        }
    }
    UNROLLED for (int r = 0; r < rows; r++) {
        _mm256_storeu_ps(t->y + r * t->y_stride, sums[r][0]);
        _mm256_storeu_ps(t->y + r * t->y_stride + 8, sums[r][1]);
    }
}

/* A function for each number of rows, so that the compiler can keep the sums in registers. */
#define BY_ROWS(name, target)                                                                                            \
    target static void name##_rows(const Tile *t, int rows) {                                                            \
        switch (rows) {                                                                                                  \
            case 1: name(t, 1); break;                                                                                   \
            case 2: name(t, 2); break;                                                                                   \
            case 3: name(t, 3); break;                                                                                   \
            case 4: name(t, 4); break;                                                                                   \
            case 5: name(t, 5); break;                                                                                   \
            default: name(t, HEIGHT);                                                                                    \
        }                                                                                                                \
    }
#define NEEDS_AVX512 __attribute__((target("avx512f,avx512bw,avx512vnni")))
BY_ROWS(int8_avx512, NEEDS_AVX512)
BY_ROWS(int8_avx2, )
BY_ROWS(fp32_avx512, NEEDS_AVX512)
BY_ROWS(fp32_avx2, )

/* Eight vectors of 32-bit numbers as columns instead of rows. */
static inline void transpose(const __m256 v[8], __m256 columns[8]) {
    __m256 a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int k = 0; k < 2; k++) {
            b[i + 2 * k] = _mm256_shuffle_ps(a[i + k], a[i + k + 2], 0x44);
            b[i + 2 * k + 1] = _mm256_shuffle_ps(a[i + k], a[i + k + 2], 0xee);
        }
    for (int i = 0; i < 4; i++) {
        columns[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        columns[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}

static inline void store_columns(const __m256 v[8], float *to, long panel) {
    __m256 columns[8];
    transpose(v, columns);
    for (int i = 0; i < 8; i++) _mm256_store_ps(to + i * panel, columns[i]);
}

/* `deep` numbers of a row in fp32 or fp16, eight from k on, zeros beyond. */
static inline __m256 eight(const void *row, int format, long k, long deep) {
    const float *whole = (const float *)row + k;
    const uint16_t *half = (const uint16_t *)row + k;
    if (k + 8 <= deep) return format == FP32 ? _mm256_loadu_ps(whole) : widened(half);
    float spare[8] = {0};
    for (long i = 0; k + i < deep; i++) spare[i] = format == FP32 ? whole[i] : _cvtsh_ss(half[i]);
    return _mm256_loadu_ps(spare);
}

/* `deep` int8 weights from input `from` on of the outputs of a panel, the first of which is `first`, and their scales.
   A panel that goes beyond the last output repeats it. */
static void widen_int8(const int8_t *w, const uint16_t *all_scales, int16_t *to, float *scales, long first, long O, long from,
                       long deep, long P, long panel) {
    for (long o = 0; o < panel; o += 8) {
        const int8_t *rows[8];
        __m256 v[8];
        for (int i = 0; i < 8; i++) rows[i] = w + (first + o + i < O ? first + o + i : O - 1) * P + from;
        for (long block = 0; block < deep / BLOCK; block += 8) {
            for (int i = 0; i < 8; i++) {
                const uint16_t *some = all_scales + (rows[i] - w) / BLOCK + block;
                v[i] = eight(some, FP16, 0, deep / BLOCK - block);
            }
            store_columns(v, scales + block * panel + o, panel);
        }
        for (long k = 0; k < deep; k += 16) {
            for (int i = 0; i < 8; i++)
                v[i] = _mm256_castsi256_ps(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(rows[i] + k))));
            store_columns(v, (float *)to + k / 2 * panel + o, panel);
        }
    }
}

/* The same of weights in fp32 or fp16. */
static void widen(const void *w, int format, float *to, long first, long O, long from, long deep, long C, long panel) {
    for (long o = 0; o < panel; o += 8) {
        const char *rows[8];
        __m256 v[8];
        for (int i = 0; i < 8; i++)
            rows[i] = (const char *)w + ((first + o + i < O ? first + o + i : O - 1) * C + from) * (format == FP32 ? 4 : 2);
        for (long k = 0; k < deep; k += 8) {
            for (int i = 0; i < 8; i++) v[i] = eight(rows[i], format, k, deep);
            store_columns(v, to + k * panel + o, panel);
        }
    }
}

/* 16 inputs of a row in 16 bits. */
static inline __m256 rounded16(__m256 low, __m256 high, __m256 inverse) {
    __m256i both = _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(low, inverse)),
                                      _mm256_cvtps_epi32(_mm256_mul_ps(high, inverse)));
    return _mm256_castsi256_ps(_mm256_permute4x64_epi64(both, 0xd8));
}

/* The scale of a row of x. NaN if an input is NaN or infinite: then the outputs are NaN too. */
static float row_scale(const float *x, long C) {
    __m256 v[4], zero = _mm256_setzero_ps(), most = zero, none = zero;
    long i = 0;
    for (; i + 8 <= C; i += 8) {
        __m256 some = _mm256_loadu_ps(x + i);
        most = _mm256_max_ps(most, absolute(some));
        none = _mm256_fmadd_ps(some, zero, none);
    }
    float top = largest(most);
    if (i < C) {
        float last = load_block(x, i, C, v);
        top = last > top ? last : top;
        none = _mm256_fmadd_ps(v[0], zero, none);
    }
    return top / 32767 + total(none);
}

/* Up to six rows of x in 16 bits, zeros beyond C, and their scales. Six rows' pairs of inputs lie side by side, in the
   order in which a kernel reads them. */
static void round_rows(const float *x, int16_t *rounded, float *scales, int rows, long C, long P) {
    __m256 v[8], inverse[HEIGHT], columns[8];
    for (int r = 0; r < HEIGHT; r++) {
        float scale = r < rows ? scales[r] = row_scale(x + r * C, C) : 0;
        inverse[r] = _mm256_set1_ps(scale > 0 ? 1 / scale : 0);
    }
    v[6] = v[7] = _mm256_setzero_ps();
    for (long i = 0; i < P; i += 16, rounded += 16 * HEIGHT) {
        for (int r = 0; r < HEIGHT; r++) {
            const float *from = x + (r < rows ? r : 0) * C + i;
            float spare[16] = {0};
            if (i + 16 > C) {
                if (i < C) memcpy(spare, from, (C - i) * sizeof *from);
                from = spare;
            }
            v[r] = rounded16(_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8), inverse[r]);
        }
        transpose(v, columns);
        for (int k = 0; k < 8; k++) {
            _mm_storeu_ps((float *)rounded + HEIGHT * k, _mm256_castps256_ps128(columns[k]));
            _mm_storel_pi((__m64 *)((float *)rounded + HEIGHT * k + 4), _mm256_extractf128_ps(columns[k], 1));
        }
    }
}

/* Weights to fetch meanwhile, from memory: `rows` times `lines` of 64 bytes, the rows `stride` bytes apart. */
typedef struct {
    const char *weights;
    long rows, lines, stride;
} Next;

/* A tile wider than y: its first `outputs` columns, in a spare copy of y's rows. */
static void multiply_narrow(Tile tile, void (*kernel)(const Tile *, int), int rows, long outputs, long panel) {
    float spare[HEIGHT * WIDEST] = {0}, *y = tile.y;
    long stride = tile.y_stride;
    tile.y = spare, tile.y_stride = panel;
    for (int r = 0; r < rows; r++) memcpy(spare + r * panel, y + r * stride, outputs * sizeof *y);
    kernel(&tile, rows);
    for (int r = 0; r < rows; r++) memcpy(y + r * stride, spare + r * panel, outputs * sizeof *y);
}

/* All rows by one tile; `size` is that of an input in bytes. */
static void multiply(Tile tile, Next next, void (*kernel)(const Tile *, int), size_t size, long T, long outputs, long panel) {
    for (long t = 0, n = 0; t < T; t += HEIGHT) {
        for (; n * T < next.rows * next.lines * (t + HEIGHT) && n < next.rows * next.lines; n++)
            _mm_prefetch(next.weights + n / next.lines * next.stride + n % next.lines * 64, _MM_HINT_T1);
        int rows = T - t < HEIGHT ? T - t : HEIGHT;
        if (outputs < panel)
            multiply_narrow(tile, kernel, rows, outputs, panel);
        else
            kernel(&tile, rows);
        tile.x = (const char *)tile.x + HEIGHT * tile.x_stride * size;
        if (tile.x_scales) tile.x_scales += HEIGHT;
        tile.y += HEIGHT * tile.y_stride;
    }
}

/* Whether this CPU can do what `avx512` asks for. */
static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni");
}

enum { ALONE, ADDED, GELU }; /* y = xWᵀ + b; y += xWᵀ + b; y = GELU(xWᵀ + b), tanh's */

static void begin(const float *bias, float *y, long T, long O, long outputs, int how) {
    for (long t = 0; t < T; t++, y += O) {
        if (how != ADDED) memset(y, 0, outputs * sizeof *y);
        for (long o = 0; bias && o < outputs; o++) y[o] += bias[o];
    }
}

/* Room to work in: T × P int16, T rounded up to a multiple of six, and T floats; int8 only. */
typedef struct {
    int16_t *x;
    float *scales;
} Rounded;

/* x (T, C) → y (T, O), in a parallel region, of which all threads call this; ends with a barrier. */
static void multiply_all(const Linear *l, int format, const float *x, float *y, Rounded rounded, long T, int how, int wide) {
    _Alignas(64) char weights[TILE];
    _Alignas(64) float scales[TILE / 2 / BLOCK];
    long O = l->outputs, C = l->inputs, P = padded(C), panel = wide ? 32 : 16;
    long size = format == INT8 ? 1 : format == FP16 ? 2 : 4; /* of a stored weight */
    long depth = format == INT8 ? P : C, most = TILE / panel / (format == INT8 ? 2 : 4);
    if (format == INT8) {
#pragma omp for schedule(static)
        for (long t = 0; t < T; t += HEIGHT)
            round_rows(x + t * C, rounded.x + t * P, rounded.scales + t, T - t < HEIGHT ? T - t : HEIGHT, C, P);
    }
#pragma omp for schedule(dynamic)
    for (long o = 0; o < O; o += panel) {
        long outputs = O - o < panel ? O - o : panel;
        begin(l->bias ? l->bias + o : NULL, y + o, T, O, outputs, how);
        for (long from = 0; from < depth; from += most) {
            long deep = depth - from < most ? depth - from : most, ends = from + deep == depth;
            /* The next tile of this panel, or the first one of a panel that this thread is likely to take. */
            long at = ends ? (o + panel * omp_get_num_threads()) * depth : o * depth + from + deep;
            Next next = {(const char *)l->weight + at * size, at < O * depth ? panel : 0, most * size / 64, depth * size};
            if (format == INT8) {
                widen_int8(l->weight, l->scales, (int16_t *)weights, scales, o, O, from, deep, P, panel);
                Tile tile = {weights, scales, rounded.x + HEIGHT * from, rounded.scales, y + o, deep, P, O};
                multiply(tile, next, wide ? int8_avx512_rows : int8_avx2_rows, sizeof *rounded.x, T, outputs, panel);
            } else {
                widen(l->weight, format, (float *)weights, o, O, from, deep, C, panel);
                Tile tile = {weights, NULL, x + from, NULL, y + o, deep, C, O};
                multiply(tile, next, wide ? fp32_avx512_rows : fp32_avx2_rows, sizeof *x, T, outputs, panel);
            }
        }
        for (long t = 0; how == GELU && t < T; t++) gelu(y + t * O + o, outputs, 0);
    }
}

/* w (O, P) int8, scales (O, P / 32) fp16; `rounded` and `x_scales`: see `Rounded`. `avx512`: use it if the CPU has it. */
void gemm_int8(const int8_t *w, const uint16_t *scales, const float *bias, const float *x, float *y, int16_t *rounded,
               float *x_scales, long T, long O, long C, int avx512, int threads) {
    Linear l = {w, scales, bias, O, C};
    Rounded room = {rounded, x_scales};
#pragma omp parallel num_threads(threads) if (threads > 1)
    multiply_all(&l, INT8, x, y, room, T, ALONE, avx512 && has_avx512());
}

/* w (O, C) fp16. */
void gemm_fp16(const uint16_t *w, const float *bias, const float *x, float *y, long T, long O, long C, int avx512, int threads) {
    Linear l = {w, NULL, bias, O, C};
    Rounded none = {NULL, NULL};
#pragma omp parallel num_threads(threads) if (threads > 1)
    multiply_all(&l, FP16, x, y, none, T, ALONE, avx512 && has_avx512());
}
