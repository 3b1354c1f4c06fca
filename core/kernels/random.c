/* random.c - Philox words in vectors, and what is made of them: uniform and normal numbers, dropout.
 *
 * Position i of a draw takes word i % 4 of block i / 4 (base/random.h), so a value depends on (key, step, i) alone, wherever a chunk
 * begins. Words are made for whole groups of positions; a group that sticks out of the chunk is made whole and cut. */
#include "../base/random.h"
#include "vmath.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { GROUP = 64, QUADS = (int)(KLANES * sizeof(real) / sizeof(uint64_t)) }; /* positions made at a time; blocks per vector */

/* The 32-bit words of QUADS blocks, each in the low half of 64 bits. */
typedef uint64_t vec_q __attribute__((vector_size(QUADS * sizeof(uint64_t))));

/* low half of a times a constant, all 64 bits of it */
static inline vec_q multiply(vec_q a, uint32_t factor)
{
#if defined(__AVX512F__)
    if (QUADS == 8) return (vec_q)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(factor));
#elif defined(__AVX2__)
    if (QUADS == 4) return (vec_q)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(factor));
#elif defined(__SSE2__)
    if (QUADS == 2) return (vec_q)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(factor));
#endif
    return (a & 0xffffffffu) * factor;
}

/* Words of WAYS * QUADS blocks from `block` on, in order of position: bp_philox, side by side. Two vectors at a time, because each round
 * waits for the multiplications of the one before. */
enum { WAYS = 2 };
static inline void philox(uint64_t key, uint64_t step, uint64_t block, uint32_t *w)
{
    vec_q c0[WAYS], c1[WAYS], c2[WAYS], c3[WAYS];
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int v = 0; v < WAYS; v++) {
        vec_q at;
        for (int l = 0; l < QUADS; l++) at[l] = block + (uint64_t)(v * QUADS + l);
        c0[v] = at & 0xffffffffu, c1[v] = at >> 32;
        c2[v] = (vec_q){ 0 } + (step & 0xffffffffu), c3[v] = (vec_q){ 0 } + (step >> 32);
    }
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
        for (int v = 0; v < WAYS; v++) {
            const vec_q p0 = multiply(c0[v], 0xD2511F53u), p1 = multiply(c2[v], 0xCD9E8D57u);
            c0[v] = (p1 >> 32) ^ c1[v] ^ (uint64_t)k0;
            c2[v] = (p0 >> 32) ^ c3[v] ^ (uint64_t)k1;
            c1[v] = p1 & 0xffffffffu;
            c3[v] = p0 & 0xffffffffu;
        }
    for (int v = 0; v < WAYS; v++) {
        const vec_q low = c0[v] | c1[v] << 32, high = c2[v] | c3[v] << 32;
        vec_q pair[2];
        for (int l = 0; l < QUADS; l++) pair[0][l] = (uint64_t)(l / 2 + l % 2 * QUADS), pair[1][l] = pair[0][l] + QUADS / 2;
        for (int half = 0; half < 2; half++, w += 2 * QUADS) {
            const vec_q side_by_side = __builtin_shuffle(low, high, pair[half]);
            memcpy(w, &side_by_side, sizeof side_by_side); /* little end first */
        }
    }
}

/* Words of positions first .. first + GROUP - 1; first is a multiple of GROUP. */
static void words(uint64_t key, uint64_t step, uint64_t first, uint32_t w[GROUP])
{
    enum { MADE = 4 * WAYS * QUADS };
    for (int i = 0; i < GROUP; i += MADE) philox(key, step, (first + (uint64_t)i) / 4, w + i);
}

void K(random_words)(int64_t n, uint64_t key, uint64_t step, uint64_t first, uint32_t *w)
{
    for (int64_t i = 0; i < n; i += GROUP) words(key, step, first + (uint64_t)i, w + i);
}

/* Float takes the upper 24 bits, which it holds exactly; double all 32. */
static void uniform(uint64_t key, uint64_t step, uint64_t first, real y[GROUP])
{
    uint32_t w[GROUP];
    words(key, step, first, w);
    for (int i = 0; i < GROUP; i++) y[i] = VMATH_DOUBLE ? (real)((double)w[i] * 0x1p-32) : (real)(int32_t)(w[i] >> 8) * (real)0x1p-24;
}

/* Box and Muller, "A note on the generation of random normal deviates", 1958: a pair of words (u, v) gives
 * sqrt(-2 log u) (cos 2 pi v, sin 2 pi v). u lies in (0, 1], at least 2^-33, so that |y| < 6.8. */
static void normal(uint64_t key, uint64_t step, uint64_t first, real y[GROUP])
{
    enum { PAIRS = GROUP / 2 };
    uint32_t w[GROUP];
    real u[PAIRS], v[PAIRS], c[PAIRS], s[PAIRS];
    words(key, step, first, w);
    for (int i = 0; i < PAIRS; i++) {
        u[i] = (real)(int32_t)(w[2 * i] >> 1) * (real)0x1p-31 + (real)0x1p-33;
        v[i] = (real)(int32_t)(w[2 * i + 1] >> 8) * (real)0x1p-24;
    }
    for (int i = 0; i < PAIRS; i += KLANES) {
        vec sine, cosine;
        const vec radius = vec_sqrt(-2 * vec_log(vec_load(u + i)));
        vec_sincos_turns(vec_load(v + i), &sine, &cosine);
        vec_store(c + i, radius * cosine);
        vec_store(s + i, radius * sine);
    }
    for (int i = 0; i < PAIRS; i++) y[2 * i] = c[i], y[2 * i + 1] = s[i];
}

/* Runs make(key, step, group, whole) for every group that meets first .. first + n - 1 and copies what lies inside. */
static inline void draw(void (*make)(uint64_t, uint64_t, uint64_t, real *), int64_t n, uint64_t key, uint64_t step, uint64_t first, real *y)
{
    const uint64_t end = first + (uint64_t)n;
    for (uint64_t at = first; at < end;) {
        const uint64_t group = at & ~(uint64_t)(GROUP - 1), stop = end - group < GROUP ? end : group + GROUP;
        real whole[GROUP];
        make(key, step, group, whole);
        memcpy(y + (at - first), whole + (at - group), (size_t)(stop - at) * sizeof(real));
        at = stop;
    }
}

void K(random_uniform)(int64_t n, uint64_t key, uint64_t step, uint64_t first, void *y) { draw(uniform, n, key, step, first, (real *)y); }

void K(random_normal)(int64_t n, uint64_t key, uint64_t step, uint64_t first, void *y) { draw(normal, n, key, step, first, (real *)y); }

/* A word decides about two elements, which lie half a group apart so that no half need be moved: element e of a group of MASKS takes the
 * lower (e < GROUP) or upper half of the group's word e % GROUP, and is kept when that is at least p * 2^16. */
void K(dropout)(int64_t n, uint64_t key, uint64_t step, uint64_t first, double p, const void *x_, void *y_)
{
    enum { MASKS = 2 * GROUP };
    const real *x = (const real *)x_;
    real *y = (real *)y_;
    if (p >= 1) {
        memset(y, 0, (size_t)n * sizeof(real));
        return;
    }
    const uint32_t least = (uint32_t)(p * 0x1p16 + 0.5);
    const real scale = (real)(1 / (1 - p));
    const uint64_t end = first + (uint64_t)n;
    for (uint64_t at = first; at < end;) {
        const uint64_t group = at & ~(uint64_t)(MASKS - 1), stop = end - group < MASKS ? end : group + MASKS;
        uint32_t w[GROUP];
        real whole[MASKS]; /* apart from x, so that y may be x */
        words(key, step, group / 2, w);
        if (stop - at < MASKS) memset(whole, 0, sizeof whole);
        memcpy(whole + (at - group), x + (at - first), (size_t)(stop - at) * sizeof(real));
        for (int i = 0; i < GROUP; i++) {
            const real low = whole[i] * scale, high = whole[GROUP + i] * scale;
            whole[i] = (w[i] & 0xffff) >= least ? low : 0;
            whole[GROUP + i] = w[i] >> 16 >= least ? high : 0;
        }
        memcpy(y + (at - first), whole + (at - group), (size_t)(stop - at) * sizeof(real));
        at = stop;
    }
}
