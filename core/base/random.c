/* random.c - keys of the random streams. */
#include "random.h"

uint64_t bp_stream_key(uint64_t seed, int stream)
{
    /* splitmix64 (Steele, Lea, Flood, OOPSLA 2014) */
    uint64_t z = seed + 0x9E3779B97F4A7C15u * (uint64_t)(stream + 1);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
