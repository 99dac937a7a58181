/* RMSNorm, rotary positions, ReLU² and the soft cap of a training step: part of training.c, whose letters it uses. `scale` is NULL
   where norms have no weights. */
#include "training_vectors.h"

/* ── RMSNorm, embeddings, residual connections ───────────────────────────────────────────────────────────────────── */

ALWAYS vector gain(const float *scale, long i) { return scale ? load(scale + i) : all(1); }

ALWAYS float reciprocal_rms(const float *x, long C, float epsilon) {
    vector squares = all(0);
    for (long i = 0; i < C; i += LANES) {
        vector one = load(x + i);
        squares = fused(one, one, squares);
    }
    return 1 / sqrtf(total(squares) / C + epsilon);
}

ALWAYS void rms_row(const float *x, const float *scale, void *h, long start, float *rstd, long C, float epsilon, int low) {
    float r = reciprocal_rms(x, C, epsilon);
    for (long i = 0; i < C; i += LANES) put(h, start + i, load(x + i) * all(r) * gain(scale, i), low);
    *rstd = r;
}

/* x (N, C) = tokens[ids], divided by its root mean square unless `embedded` (N) is NULL; h (N, C) = RMSNorm(x). */
void embed_rms(const int64_t *ids, const float *tokens, float *x, float *embedded, const float *scale, void *h, float *rstd,
               long N, long C, float epsilon, int low, int threads) {
    PARALLEL {
        SHARE(first, last, N);
        for (long n = first; n < last; n++) {
            const float *token = tokens + ids[n] * C;
            float r = embedded ? reciprocal_rms(token, C, epsilon) : 1;
            for (long i = 0; i < C; i += LANES) store(x + n * C + i, load(token + i) * all(r));
            if (embedded) embedded[n] = r;
            if (low)
                rms_row(x + n * C, scale, h, n * C, rstd + n, C, epsilon, 1);
            else
                rms_row(x + n * C, scale, h, n * C, rstd + n, C, epsilon, 0);
        }
    }
}

/* g (N, C), the gradient of embed_rms's x, becomes that of the tokens' rows. */
void embedded_backward(float *g, const float *x, const float *embedded, long N, long C, int threads) {
    PARALLEL {
        SHARE(first, last, N);
        for (long n = first; n < last; n++) {
            vector dot = all(0);
            for (long i = n * C; i < (n + 1) * C; i += LANES) dot = fused(load(g + i), load(x + i), dot);
            vector mean = all(total(dot) / C), r = all(embedded[n]);
            for (long i = n * C; i < (n + 1) * C; i += LANES) store(g + i, (load(g + i) - load(x + i) * mean) * r);
        }
    }
}

ALWAYS void residual_rms_row(const float *x, const void *product, float *made, const float *scale, void *h, float *rstd, long n,
                             long C, float epsilon, int low) {
    for (long i = n * C; i < (n + 1) * C; i += LANES) store(made + i, load(x + i) + get(product, i, low));
    rms_row(made + n * C, scale, h, n * C, rstd + n, C, epsilon, low);
}

/* made (N, C) = x + product, h = RMSNorm(made). */
void residual_rms(const float *x, const void *product, float *made, const float *scale, void *h, float *rstd, long N, long C,
                  float epsilon, int low, int threads) {
    PARALLEL {
        SHARE(first, last, N);
        for (long n = first; n < last; n++)
            if (low)
                residual_rms_row(x, product, made, scale, h, rstd, n, C, epsilon, 1);
            else
                residual_rms_row(x, product, made, scale, h, rstd, n, C, epsilon, 0);
    }
}

ALWAYS void rms_backward_row(const void *dh, const float *x, float r, const float *scale, float *g, void *g_low, float *sums,
                             long start, long C, int low, int begins) {
    vector dot = all(0);
    for (long i = 0; i < C; i += LANES) dot = fused(get(dh, start + i, low) * gain(scale, i), load(x + start + i), dot);
    vector mean = all(total(dot) * r * r / C);
    for (long i = 0; i < C; i += LANES) {
        vector d = get(dh, start + i, low), one = load(x + start + i);
        if (scale) store(sums + i, fused(d, one * all(r), load(sums + i)));
        vector made = (d * gain(scale, i) - one * mean) * all(r);
        if (!begins) made += load(g + start + i);
        store(g + start + i, made);
        if (low) put(g_low, start + i, made, 1);
    }
}

/* As norm_backward, through RMSNorm. room: chunks(N) × C. */
void rms_backward(const void *dh, const float *x, const float *rstd, const float *scale, float *g, void *g_low, float *dscale,
                  float *room, long N, long C, int begins, int low, int add, int threads) {
    long K = chunks(N), R = chunk_rows(N);
    PARALLEL {
        SHARE(first, last, K);
        for (long k = first; k < last; k++) {
            float *sums = room + k * C;
            memset(sums, 0, C * sizeof(float));
            long end = (k + 1) * R < N ? (k + 1) * R : N;
            for (long n = k * R; n < end; n++)
                if (low)
                    rms_backward_row(dh, x, rstd[n], scale, g, g_low, sums, n * C, C, 1, begins);
                else
                    rms_backward_row(dh, x, rstd[n], scale, g, g_low, sums, n * C, C, 0, begins);
        }
        if (scale) {
#pragma omp barrier
            SHARE(begin, end, C / LANES);
            add_up(room, K, C, dscale, begin * LANES, end * LANES, add);
        }
    }
}

/* ── Rotary positions, with an RMSNorm of each query and key if rstd (N, H + K) is not NULL ───────────────────────── */

typedef struct { /* H: query and key heads; cosine and sine (T, D / 2), with LANES numbers after them */
    const float *cosine, *sine;
    long T, H, stride, D;
} Turns;

#define TURN_ROOM(D) (2 * ((D) + 16)) /* floats; D / 2 need not be whole vectors, so the last one of a half goes beyond it */

/* to (D): the pairs i and i + D / 2 of from (D), turned by the angles of position n, or back if `sign` is -1. */
ALWAYS void turn(const float *from, float *to, Turns a, long n, float sign) {
    long half = a.D / 2;
    const float *cosine = a.cosine + n % a.T * half, *sine = a.sine + n % a.T * half;
    for (long i = 0; i < half; i += LANES)
        store(to + i, load(from + i) * load(cosine + i) - load(from + half + i) * (load(sine + i) * all(sign)));
    for (long i = 0; i < half; i += LANES) /* after the first half, whose last vector may go beyond it */
        store(to + half + i, load(from + half + i) * load(cosine + i) + load(from + i) * (load(sine + i) * all(sign)));
}

ALWAYS void rotate_head(void *qkv, const float *bias, float *rstd, float *room, Turns a, long n, long h, float epsilon, int low) {
    float *x = room, *made = room + a.D + 16;
    long at = n * a.stride + h * a.D;
    vector squares = all(0);
    for (long i = 0; i < a.D; i += LANES) {
        vector one = get(qkv, at + i, low);
        if (bias) one += load(bias + h * a.D + i);
        store(x + i, one);
        if (rstd) squares = fused(one, one, squares);
    }
    if (rstd) { /* which turning does not change */
        vector factor = all(rstd[n * a.H + h] = 1 / sqrtf(total(squares) / a.D + epsilon));
        for (long i = 0; i < a.D; i += LANES) store(x + i, load(x + i) * factor);
    }
    turn(x, made, a, n, 1);
    for (long i = 0; i < a.D; i += LANES) put(qkv, at + i, load(made + i), low);
}

/* The query and key heads of qkv (N, stride), + bias (H D) unless it is NULL, in place. room: threads × TURN_ROOM(D). */
void rotate(void *qkv, const float *bias, const float *cosine, const float *sine, float *rstd, float *room, long N, long T, long H,
            long stride, long D, float epsilon, int low, int threads) {
    Turns turns = {cosine, sine, T, H, stride, D};
    PARALLEL {
        SHARE(first, last, N);
        float *mine = room + omp_get_thread_num() * TURN_ROOM(D);
        memset(mine, 0, TURN_ROOM(D) * sizeof(float));
        for (long n = first; n < last; n++)
            for (long h = 0; h < H; h++)
                if (low)
                    rotate_head(qkv, bias, rstd, mine, turns, n, h, epsilon, 1);
                else
                    rotate_head(qkv, bias, rstd, mine, turns, n, h, epsilon, 0);
    }
}

ALWAYS void rotate_back_head(void *d, const void *qkv, const float *rstd, float *sums, float *room, Turns a, long n, long h, int low) {
    float *x = room, *made = room + a.D + 16;
    long at = n * a.stride + h * a.D;
    vector dot = all(0), mean = all(0), factor = all(1);
    if (rstd) {
        for (long i = at; i < at + a.D; i += LANES) dot = fused(get(d, i, low), get(qkv, i, low), dot);
        mean = all(total(dot) / a.D), factor = all(rstd[n * a.H + h]);
    }
    for (long i = 0; i < a.D; i += LANES) {
        vector one = get(d, at + i, low);
        if (rstd) one = (one - get(qkv, at + i, low) * mean) * factor;
        store(x + i, one);
    }
    turn(x, made, a, n, -1);
    for (long i = 0; i < a.D; i += LANES) {
        vector one = load(made + i);
        put(d, at + i, one, low);
        if (sums) store(sums + h * a.D + i, load(sums + h * a.D + i) + one);
    }
}

/* d (N, stride), the gradient of what `rotate` made, becomes that of what it got, and the bias's gradient dbias (H D), none if it is NULL.
   qkv: what it made. sums: chunks(N) × H D; room: threads × TURN_ROOM(D). */
void rotate_backward(void *d, const void *qkv, const float *cosine, const float *sine, const float *rstd, float *dbias, float *sums,
                     float *room, long N, long T, long H, long stride, long D, int low, int add, int threads) {
    Turns turns = {cosine, sine, T, H, stride, D};
    long K = chunks(N), R = chunk_rows(N), width = H * D;
    PARALLEL {
        SHARE(first, last, K);
        float *mine = room + omp_get_thread_num() * TURN_ROOM(D);
        memset(mine, 0, TURN_ROOM(D) * sizeof(float));
        for (long k = first; k < last; k++) {
            float *own = dbias ? sums + k * width : NULL;
            if (own) memset(own, 0, width * sizeof(float));
            for (long n = k * R; n < (k + 1) * R && n < N; n++)
                for (long h = 0; h < H; h++)
                    if (low)
                        rotate_back_head(d, qkv, rstd, own, mine, turns, n, h, 1);
                    else
                        rotate_back_head(d, qkv, rstd, own, mine, turns, n, h, 0);
        }
        if (dbias) {
#pragma omp barrier
            SHARE(begin, end, width / LANES);
            add_up(sums, K, width, dbias, begin * LANES, end * LANES, add);
        }
    }
}

/* ── ReLU² ───────────────────────────────────────────────────────────────────────────────────────────────────────── */

ALWAYS void squared_relu_row(void *u, const float *bias, void *y, long start, long F, int low) {
    for (long i = 0; i < F; i += LANES) {
        vector x = V(max_ps)(all(0), get(u, start + i, low) + load(bias + i)); /* NaN stays NaN */
        put(y, start + i, x * x, low);
        put(u, start + i, x + x, low);
    }
}

/* y (N, F) = max(0, u + bias)², and in u's place its derivative. */
void squared_relu(void *u, const float *bias, void *y, long N, long F, int low, int threads) {
    PARALLEL {
        SHARE(first, last, N);
        for (long n = first; n < last; n++)
            if (low)
                squared_relu_row(u, bias, y, n * F, F, 1);
            else
                squared_relu_row(u, bias, y, n * F, F, 0);
    }
}

/* ── Head ────────────────────────────────────────────────────────────────────────────────────────────────────────── */

ALWAYS float capped_loss_row(void *logits, long start, long y, float *z, long V_, float share, float cap, int low) {
    long whole = V_ / LANES * LANES, i;
    vector most_ = all(-INFINITY), sum_ = all(0), narrow_ = all(2 / cap);
    for (i = 0; i < whole; i += LANES) {
        vector t = all(1) - all(2) / (exponential(get(logits, start + i, low) * narrow_) + all(1)); /* tanh(logit ÷ cap) */
        store(z + i, t * all(cap));
        most_ = V(max_ps)(t * all(cap), most_);
    }
    float most = largest(most_), sum = 0;
    for (; i < V_; i++) {
        z[i] = cap * tanhf(get_one(logits, start + i, low) / cap);
        most = z[i] > most ? z[i] : most;
    }
    float wanted = z[y];
    for (i = 0; i < whole; i += LANES) sum_ += exponential(load(z + i) - all(most));
    sum = total(sum_);
    for (; i < V_; i++) sum += expf(z[i] - most);
    float factor = share / sum, y_ = expf(wanted - most) / sum - 1;
    for (i = 0; i < whole; i += LANES) {
        vector one = load(z + i), t = one * all(1 / cap);
        put(logits, start + i, exponential(one - all(most)) * all(factor) * (all(1) - t * t), low);
    }
    for (; i < V_; i++) put_one(logits, start + i, expf(z[i] - most) * factor * (1 - z[i] / cap * (z[i] / cap)), low);
    put_one(logits, start + y, y_ * share * (1 - wanted / cap * (wanted / cap)), low);
    return logf(sum) + most - wanted;
}

/* As softmax_loss, of logits that are soft-capped: cap · tanh(logit ÷ cap). */
void capped_loss(void *logits, const int64_t *targets, float *losses, float *room, long N, long V_, float share, float cap,
                 int low, int threads) {
    PARALLEL {
        SHARE(first, last, N);
        float *z = room + omp_get_thread_num() * (V_ + 16);
        for (long n = first; n < last; n++)
            losses[n] = low ? capped_loss_row(logits, n * V_, targets[n], z, V_, share, cap, 1)
                            : capped_loss_row(logits, n * V_, targets[n], z, V_, share, cap, 0);
    }
}
