/* random.h - Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 * A draw is a function of (key, step, position): key from the seed and the stream's name, step counts the applications of random ops on
 * that stream, position is the element. Block b of a draw covers elements 4b..4b+3. */
#ifndef BP_RANDOM_H
#define BP_RANDOM_H

#include <stdint.h>

/* Four words for block `block` of draw `step` under `key`. */
static inline void bp_philox(uint64_t key, uint64_t step, uint64_t block, uint32_t out[4])
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32), c2 = (uint32_t)step, c3 = (uint32_t)(step >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1, c3 = (uint32_t)p0, c0 = n0, c2 = n2;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* Word of element `position`. */
static inline uint32_t bp_philox_at(uint64_t key, uint64_t step, uint64_t position)
{
    uint32_t w[4];
    bp_philox(key, step, position >> 2, w);
    return w[position & 3];
}

/* The key of a stream: splitmix64 over seed and stream number. */
uint64_t bp_stream_key(uint64_t seed, int stream);

#endif
