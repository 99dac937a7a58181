/* What lies between the matrix products of a training step, and in fp32 these too, for x86-64 with AVX2 and FMA, or AVX-512. `native_training.py`
   compiles this file for the CPU at hand; `native_training_step.py` calls it.

   Letters as in model.py; N = B · T rows, F the MLP's hidden width. Weights, their gradients, the residual stream and all sums are
   fp32. `low`: the operands and results of products are bf16, else fp32. C, D and F are multiples of 16. Rows are contiguous.
   Gradients are written, or added if `add`.

   Results do not depend on `threads`: sums over rows are made of chunks whose size depends on N alone. */
#include "training_vectors.h"

#include "training_attention.c"
#include "training_products.c"
#include "training_rotary.c"

/* ── LayerNorm, embeddings, residual connections ─────────────────────────────────────────────────────────────────── */

ALWAYS void normalize(const float *x, const float *scale, const float *shift, void *h, long start, float *mean, float *rstd,
                      long C, float epsilon, int low) {
    vector sum = all(0), squares = all(0);
    for (long i = 0; i < C; i += LANES) sum += load(x + i);
    float m = total(sum) / C;
    for (long i = 0; i < C; i += LANES) {
        vector d = load(x + i) - all(m);
        squares = fused(d, d, squares);
    }
    float r = 1 / sqrtf(total(squares) / C + epsilon);
    for (long i = 0; i < C; i += LANES)
        put(h, start + i, fused((load(x + i) - all(m)) * all(r), load(scale + i), load(shift + i)), low);
    *mean = m, *rstd = r;
}

/* x (N, C) = tokens[ids] + positions, unless these are NULL; h (N, C) = LayerNorm(x). */
void embed_norm(const int64_t *ids, const float *tokens, const float *positions, float *x, const float *scale,
                const float *shift, void *h, float *mean, float *rstd, long N, long T, long C, float epsilon, int low,
                int threads) {
    PARALLEL {
        SHARE(first, last, N);
        for (long n = first; n < last; n++) {
            const float *token = tokens + ids[n] * C, *position = positions ? positions + n % T * C : NULL;
            for (long i = 0; i < C; i += LANES) {
                vector one = load(token + i);
                if (position) one += load(position + i);
                store(x + n * C + i, one);
            }
            if (low)
                normalize(x + n * C, scale, shift, h, n * C, mean + n, rstd + n, C, epsilon, 1);
            else
                normalize(x + n * C, scale, shift, h, n * C, mean + n, rstd + n, C, epsilon, 0);
        }
    }
}

ALWAYS void residual_row(const float *x, const void *product, const float *bias, float *made, long n, long C, int low) {
    for (long i = 0; i < C; i += LANES)
        store(made + n * C + i, load(x + n * C + i) + (get(product, n * C + i, low) + load(bias + i)));
}

/* made (N, C) = x + product + bias, h = LayerNorm(made). */
void residual_norm(const float *x, const void *product, const float *bias, float *made, const float *scale,
                   const float *shift, void *h, float *mean, float *rstd, long N, long C, float epsilon, int low,
                   int threads) {
    PARALLEL {
        SHARE(first, last, N);
        for (long n = first; n < last; n++)
            if (low) {
                residual_row(x, product, bias, made, n, C, 1);
                normalize(made + n * C, scale, shift, h, n * C, mean + n, rstd + n, C, epsilon, 1);
            } else {
                residual_row(x, product, bias, made, n, C, 0);
                normalize(made + n * C, scale, shift, h, n * C, mean + n, rstd + n, C, epsilon, 0);
            }
    }
}

/* Some rows from n on at a time, so that the column sums are seldom read and written. */
ALWAYS void norm_backward_rows(const void *dh, const float *x, const float *mean, const float *rstd, const float *scale,
                               float *g, void *g_low, float *sums, long n, const int rows, long C, int low, int begins) {
    vector m[4], r[4], a[4], b[4];
    for (int k = 0; k < rows; k++) m[k] = all(mean[n + k]), r[k] = all(rstd[n + k]), a[k] = b[k] = all(0);
    for (long i = 0; i < C; i += LANES) {
        vector weight = load(scale + i);
#pragma GCC unroll 4
        for (int k = 0; k < rows; k++) {
            vector d = get(dh, (n + k) * C + i, low) * weight, hat = (load(x + (n + k) * C + i) - m[k]) * r[k];
            a[k] += d, b[k] = fused(d, hat, b[k]);
        }
    }
    for (int k = 0; k < rows; k++) a[k] = all(total(a[k]) / C), b[k] = all(total(b[k]) / C);
    for (long i = 0; i < C; i += LANES) {
        vector weight = load(scale + i), dscale = load(sums + i), dshift = load(sums + C + i), dbias = load(sums + 2 * C + i);
#pragma GCC unroll 4
        for (int k = 0; k < rows; k++) {
            long at = (n + k) * C + i;
            vector d = get(dh, at, low), hat = (load(x + at) - m[k]) * r[k];
            dscale = fused(d, hat, dscale), dshift += d;
            vector made = (d * weight - a[k] - hat * b[k]) * r[k];
            if (!begins) made += load(g + at);
            store(g + at, made);
            if (low) put(g_low, at, made, 1);
            dbias += made;
        }
        store(sums + i, dscale), store(sums + C + i, dshift), store(sums + 2 * C + i, dbias);
    }
}

ALWAYS void norm_backward_chunk(const void *dh, const float *x, const float *mean, const float *rstd, const float *scale,
                                float *g, void *g_low, float *sums, long n, long end, long C, int low, int begins) {
    for (; n + 4 <= end; n += 4) norm_backward_rows(dh, x, mean, rstd, scale, g, g_low, sums, n, 4, C, low, begins);
    for (; n < end; n++) norm_backward_rows(dh, x, mean, rstd, scale, g, g_low, sums, n, 1, C, low, begins);
}

/* Through LayerNorm, into the residual stream: g (N, C) = or, unless `begins`, += the gradient of x, given that of the
   normalized h, dh; g_low the same in bf16. Also the gradients of scale and shift, and the column sums of g: the gradient of the
   bias before (NULL where there is none). room: chunks(N) × 3 C. */
void norm_backward(const void *dh, const float *x, const float *mean, const float *rstd, const float *scale, float *g,
                   void *g_low, float *dscale, float *dshift, float *dbias, float *room, long N, long C, int begins,
                   int low, int add, int threads) {
    long K = chunks(N), R = chunk_rows(N);
    PARALLEL {
        SHARE(first, last, K);
        for (long k = first; k < last; k++) {
            float *sums = room + k * 3 * C;
            memset(sums, 0, 3 * C * sizeof(float));
            long end = (k + 1) * R < N ? (k + 1) * R : N;
            if (low)
                norm_backward_chunk(dh, x, mean, rstd, scale, g, g_low, sums, k * R, end, C, 1, begins);
            else
                norm_backward_chunk(dh, x, mean, rstd, scale, g, g_low, sums, k * R, end, C, 0, begins);
        }
#pragma omp barrier
        SHARE(begin, end, C / LANES);
        add_up(room, K, 3 * C, dscale, begin * LANES, end * LANES, add);
        add_up(room + C, K, 3 * C, dshift, begin * LANES, end * LANES, add);
        if (dbias) add_up(room + 2 * C, K, 3 * C, dbias, begin * LANES, end * LANES, add);
    }
}

/* The gradients of both embeddings: g (N, C). A column is summed by one thread, row after row. `tied`: dtokens has the head's. */
void embedding_backward(const int64_t *ids, const float *g, float *dtokens, float *dpositions, long N, long T, long C,
                        long rows, long context, int tied, int add, int threads) {
    PARALLEL {
        SHARE(begin, end, C / LANES);
        long from = begin * LANES, to = end * LANES, B = N / T;
        if (!tied && !add)
            for (long row = 0; row < rows; row++) memset(dtokens + row * C + from, 0, (to - from) * sizeof(float));
        for (long n = 0; n < N; n++) {
            float *row = dtokens + ids[n] * C;
            for (long i = from; i < to; i += LANES) store(row + i, load(row + i) + load(g + n * C + i));
        }
        for (long t = 0; dpositions && t < T; t++) /* NULL where positions are not embedded */
            for (long i = from; i < to; i += LANES) {
                vector sum = add ? load(dpositions + t * C + i) : all(0);
                for (long b = 0; b < B; b++) sum += load(g + (b * T + t) * C + i);
                store(dpositions + t * C + i, sum);
            }
        if (!add && dpositions)
            for (long t = T; t < context; t++) memset(dpositions + t * C + from, 0, (to - from) * sizeof(float));
    }
}

/* ── GELU ────────────────────────────────────────────────────────────────────────────────────────────────────────── */

/* x σ(z), z = 2 √(2/π) (x + 0.044715 x³), and its derivative σ + x σ (1 − σ) z′. */
ALWAYS void gelu_row(void *u, const float *bias, void *y, long start, long F, int low) {
    const float a = 1.5957691216f, b = 0.0713548162726f;
    for (long i = 0; i < F; i += LANES) {
        vector x = get(u, start + i, low) + load(bias + i), square = x * x;
        vector z = x * fused(square, all(b), all(a));
        vector s = all(1) / (all(1) + exponential(all(0) - z)), made = x * s;
        put(y, start + i, made, low);
        put(u, start + i, fused(V(fnmadd_ps)(made, s, made), fused(square, all(3 * b), all(a)), s), low);
    }
}

/* y (N, F) = GELU(u + bias), and in u's place its derivative. */
void gelu_forward(void *u, const float *bias, void *y, long N, long F, int low, int threads) {
    PARALLEL {
        SHARE(first, last, N);
        for (long n = first; n < last; n++)
            if (low)
                gelu_row(u, bias, y, n * F, F, 1);
            else
                gelu_row(u, bias, y, n * F, F, 0);
    }
}

ALWAYS void gelu_backward_rows(void *g, const void *slope, float *sums, long n, const int rows, long F, int low) {
    for (long i = 0; i < F; i += LANES) {
        vector sum = load(sums + i);
#pragma GCC unroll 4
        for (int k = 0; k < rows; k++) {
            long at = (n + k) * F + i;
            vector made = get(g, at, low) * get(slope, at, low);
            put(g, at, made, low);
            sum += made;
        }
        store(sums + i, sum);
    }
}

ALWAYS void gelu_backward_chunk(void *g, const void *slope, float *sums, long n, long end, long F, int low) {
    for (; n + 4 <= end; n += 4) gelu_backward_rows(g, slope, sums, n, 4, F, low);
    for (; n < end; n++) gelu_backward_rows(g, slope, sums, n, 1, F, low);
}

/* g (N, F) *= slope, and its column sums, the bias's gradient (NULL where there is none). room: chunks(N) × F. */
void gelu_backward(void *g, const void *slope, float *dbias, float *room, long N, long F, int low, int add, int threads) {
    long K = chunks(N), R = chunk_rows(N);
    PARALLEL {
        SHARE(first, last, K);
        for (long k = first; k < last; k++) {
            float *sums = room + k * F;
            memset(sums, 0, F * sizeof(float));
            long end = (k + 1) * R < N ? (k + 1) * R : N;
            if (low)
                gelu_backward_chunk(g, slope, sums, k * R, end, F, 1);
            else
                gelu_backward_chunk(g, slope, sums, k * R, end, F, 0);
        }
        if (dbias) {
#pragma omp barrier
            SHARE(begin, end, F / LANES);
            add_up(room, K, F, dbias, begin * LANES, end * LANES, add);
        }
    }
}

/* ── Head ────────────────────────────────────────────────────────────────────────────────────────────────────────── */

ALWAYS float loss_row(void *logits, long start, long y, float *e, long V_, float share, int low) {
    long whole = V_ / LANES * LANES, i;
    float most = -INFINITY, sum = 0, wanted = get_one(logits, start + y, low);
    vector most_ = all(-INFINITY), sum_ = all(0);
    for (i = 0; i < whole; i += LANES) most_ = V(max_ps)(get(logits, start + i, low), most_);
    most = largest(most_);
    for (; i < V_; i++) e[i] = get_one(logits, start + i, low), most = e[i] > most ? e[i] : most;
    for (; i % LANES; i++) e[i] = -INFINITY;
    for (i = 0; i < whole; i += LANES) {
        vector one = exponential(get(logits, start + i, low) - all(most));
        store(e + i, one);
        sum_ += one;
    }
    if (whole < V_) {
        vector one = exponential(load(e + whole) - all(most));
        store(e + whole, one);
        for (i = whole; i < V_; i++) sum += e[i];
    }
    sum += total(sum_);
    float factor = share / sum;
    for (i = 0; i < whole; i += LANES) put(logits, start + i, load(e + i) * all(factor), low);
    for (; i < V_; i++) put_one(logits, start + i, e[i] * factor, low);
    put_one(logits, start + y, (e[y] / sum - 1) * share, low);
    return logf(sum) + most - wanted;
}

/* losses (N): the cross-entropy of each row of logits (N, V) in nats. The logits become its gradient × share: (p − y) share.
   room: threads × (V + LANES). */
void softmax_loss(void *logits, const int64_t *targets, float *losses, float *room, long N, long V_, float share, int low,
                  int threads) {
    PARALLEL {
        SHARE(first, last, N);
        float *e = room + omp_get_thread_num() * (V_ + 16);
        for (long n = first; n < last; n++)
            losses[n] = low ? loss_row(logits, n * V_, targets[n], e, V_, share, 1)
                            : loss_row(logits, n * V_, targets[n], e, V_, share, 0);
    }
}

double sum_losses(const float *losses, long N) {
    double sum = 0;
    for (long n = 0; n < N; n++) sum += losses[n];
    return sum;
}

/* ── Flat buffers ────────────────────────────────────────────────────────────────────────────────────────────────── */

/* bf16 to fp32, written or added; count is a multiple of 16. */
void widen(const uint16_t *from, float *to, long count, int add, int threads) {
    PARALLEL {
        SHARE(first, last, count / LANES);
        for (long i = first * LANES; i < last * LANES; i += LANES) {
            vector one = get(from, i, 1);
            if (add) one += load(to + i);
            store(to + i, one);
        }
    }
}

/* fp32 to bf16; count is a multiple of 16. */
void narrow(const float *from, uint16_t *to, long count, int threads) {
    PARALLEL {
        SHARE(first, last, count / LANES);
        for (long i = first * LANES; i < last * LANES; i += LANES) put(to, i, load(from + i), 1);
    }
}

#define ROW 4096 /* numbers of which a float32 sum is made */

/* The sum of squares of x; count is a multiple of 4096. room: count / 4096 doubles. */
double sum_squares(const float *x, double *room, long count, int threads) {
    PARALLEL {
        SHARE(first, last, count / ROW);
        for (long row = first; row < last; row++) {
            vector sums[4] = {all(0), all(0), all(0), all(0)};
            for (long i = 0; i < ROW; i += 4 * LANES)
                for (int k = 0; k < 4; k++) {
                    vector one = load(x + row * ROW + i + k * LANES);
                    sums[k] = fused(one, one, sums[k]);
                }
            room[row] = total((sums[0] + sums[1]) + (sums[2] + sums[3]));
        }
    }
    double sum = 0;
    for (long row = 0; row < count / ROW; row++) sum += room[row];
    return sum;
}

/* `factor` where x ≥ 0, 1 elsewhere. */
ALWAYS vector factors(vector x, float factor) {
    __typeof__(x >= all(0)) mask = x >= all(0), one = (__typeof__(mask))all(1);
    return (vector)((mask & (__typeof__(mask))all(factor)) | (~mask & one));
}

/* torch.optim.AdamW's update, with gradients that are scaled first (and stored so); `decayed` numbers have weight decay,
   with `cautious` only those whose mean gradient does not have the opposite sign (cautious.py).
   rate: learning rate; size = rate / (1 − β₁ᵗ); root = √(1 − β₂ᵗ). Counts are multiples of 16. */
void adamw(float *w, float *g, float *mean, float *square, long count, long decayed, float scale, float rate, float decay,
           float beta1, float beta2, float epsilon, float size, float root, int cautious, int threads) {
    PARALLEL {
        SHARE(first, last, count / LANES);
        for (long i = first * LANES; i < last * LANES; i += LANES) {
            vector d = load(g + i), x = load(w + i);
            if (scale != 1) store(g + i, d *= all(scale));
            vector m = load(mean + i), s = load(square + i);
            m = fused(d - m, all(1 - beta1), m);
            if (i < decayed) x *= cautious ? factors(m * x, 1 - rate * decay) : all(1 - rate * decay);
            s = fused(d * d, all(1 - beta2), s * all(beta2));
            store(mean + i, m), store(square + i, s);
            store(w + i, x - all(size) * m / fused(V(sqrt_ps)(s), all(1 / root), all(epsilon)));
        }
    }
}
