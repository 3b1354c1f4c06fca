/* machine.c - what this machine gives while a benchmark runs: multiply-adds per second, bytes per second, and the cost of starting a
 * program.
 *
 * Answers each line of its input with one line of JSON, as every program of the bench does:
 *
 *     peak              {"p1": GFLOP/s of one core, "p": of all at once}       independent multiply-adds in registers, nothing else
 *     bandwidth MB      {"b": GB/s}     a[i] = b[i] + s c[i] by all threads over three blocks of MB megabytes each: 12 bytes an element
 * (the reading of a for its own writing is not counted) start COMMAND     {"seconds": from start to end, "peak_bytes": of its memory,
 * "status": 0}       run by the shell's exec rest SECONDS      {}              does nothing for that long, so that the pools of others stop
 * spinning idle              {"busy": seconds that all processors have worked, "total": and existed} since the machine started, stolen time
 * as work
 *
 * A figure is the average over a window (some milliseconds), not the best of many: what a neighbour takes is to be seen. The width is the
 * widest of the processor: 16, 8 or 4 floats; elsewhere 4. Its own threads, its own loops: nothing of libbp is measured with itself. */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_THREADS = 64 };
static const double PEAK_WINDOW = 0.012, BANDWIDTH_WINDOW = 0.04;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- multiply-adds ---- */

typedef float vec4 __attribute__((vector_size(16)));
typedef float vec8 __attribute__((vector_size(32)));
typedef float vec16 __attribute__((vector_size(64)));

/* Runs until `end`, returns how many floating-point operations it did: 12 chains hide a latency of 4 at two a cycle, with room. */
#define PEAK(name, vec, lanes, attribute)                                                                                              \
    attribute static double name(double end)                                                                                           \
    {                                                                                                                                  \
        vec a[12], x = (vec){ 0 } + 0.999f, y = (vec){ 0 } + 1e-3f;                                                                     \
        for (int i = 0; i < 12; i++) a[i] = (vec){ 0 } + 0.1f * (float)i;                                                              \
        double work = 0;                                                                                                               \
        do {                                                                                                                           \
            for (int n = 0; n < 4000; n++) {                                                                                           \
                _Pragma("GCC unroll 12") for (int i = 0; i < 12; i++) a[i] = a[i] * x + y;                                             \
                __asm__ volatile("" : "+v"(x));                                                                                        \
            }                                                                                                                          \
            work += 4000.0 * 12 * 2 * lanes;                                                                                           \
        } while (now() < end);                                                                                                         \
        vec all = a[0];                                                                                                                \
        for (int i = 1; i < 12; i++) all += a[i];                                                                                      \
        return work + (all[0] == 12345 ? 1 : 0);                                                                                       \
    }
#if defined(__x86_64__)
PEAK(peak4, vec4, 4, )
PEAK(peak8, vec8, 8, __attribute__((target("avx2,fma"))))
PEAK(peak16, vec16, 16, __attribute__((target("avx512f,prefer-vector-width=512"))))
#else
#undef PEAK
static double peak4(double end)
{
    vec4 a[12], x = (vec4){ 0 } + 0.999f, y = (vec4){ 0 } + 1e-3f;
    for (int i = 0; i < 12; i++) a[i] = (vec4){ 0 } + 0.1f * (float)i;
    double work = 0;
    do {
        for (int n = 0; n < 4000; n++) {
            for (int i = 0; i < 12; i++) a[i] = a[i] * x + y;
            __asm__ volatile("" : "+w"(x));
        }
        work += 4000.0 * 12 * 2 * 4;
    } while (now() < end);
    for (int i = 1; i < 12; i++) a[0] += a[i];
    return work + (a[0][0] == 12345 ? 1 : 0);
}
#endif

static double multiply_adds(double end)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return peak16(end);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return peak8(end);
#endif
    return peak4(end);
}

/* ---- bytes ---- */

static float *blocks[3];
static size_t block_count; /* floats of a block */
static int team = 1;

/* This thread's share, again and again until `end`; returns the bytes. */
static double triad(double end, int thread)
{
    const size_t from = block_count / 16 * (size_t)thread / (size_t)team * 16,
                 to = block_count / 16 * (size_t)(thread + 1) / (size_t)team * 16;
    float *restrict a = blocks[0] + from;
    const float *restrict b = blocks[1] + from, *restrict c = blocks[2] + from;
    double bytes = 0;
    do {
        for (size_t i = 0; i + 4 <= to - from; i += 4) {
            vec4 x, y;
            memcpy(&x, b + i, 16);
            memcpy(&y, c + i, 16);
            x += 0.5f * y;
            memcpy(a + i, &x, 16);
        }
        bytes += 12.0 * (double)(to - from);
    } while (now() < end);
    return bytes;
}

/* ---- threads that start at the same time ---- */

typedef struct share {
    int thread;
    bool memory;
    double start, end, work;
} share;

static void *work(void *ud)
{
    share *s = (share *)ud;
    while (now() < s->start) sched_yield();
    s->work = s->memory ? triad(s->end, s->thread) : multiply_adds(s->end);
    s->end = now();
    return NULL;
}

/* Work per second of `threads` threads in a window of so many seconds. */
static double rate(int threads, bool memory, double seconds)
{
    share shares[MOST_THREADS];
    pthread_t others[MOST_THREADS];
    const double start = now() + (threads > 1 ? 3e-4 : 0);
    double sum = 0;
    team = threads;
    for (int i = threads - 1; i >= 0; i--) {
        shares[i] = (share){ i, memory, start, start + seconds, 0 };
        if (i == 0)
            work(&shares[0]);
        else if (pthread_create(&others[i], NULL, work, &shares[i]) != 0)
            exit(2);
    }
    for (int i = 1; i < threads; i++) pthread_join(others[i], NULL);
    for (int i = 0; i < threads; i++) sum += shares[i].work / (shares[i].end - start);
    return sum;
}

static int processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    const int n = CPU_COUNT(&set);
    return n > MOST_THREADS ? MOST_THREADS : n;
}

/* ---- commands ---- */

static void bandwidth(double megabytes)
{
    const size_t bytes = (size_t)(megabytes * 1e6) / 64 * 64;
    block_count = bytes / sizeof(float);
    for (int i = 0; i < 3; i++) {
        blocks[i] = (float *)aligned_alloc(64, bytes);
        if (!blocks[i]) exit(2);
        memset(blocks[i], i, bytes);
    }
    rate(processors(), true, 0.005);
    printf("{\"b\": %.2f}\n", 1e-9 * rate(processors(), true, BANDWIDTH_WINDOW));
    for (int i = 0; i < 3; i++) free(blocks[i]);
}

static void start(const char *command)
{
    malloc_trim(0); /* what this process holds at the fork would count as the child's */
    const double begin = now();
    const pid_t child = fork();
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    int status = -1;
    struct rusage used;
    if (child < 0 || wait4(child, &status, 0, &used) < 0) {
        printf("{\"error\": \"cannot start it\"}\n");
        return;
    }
    printf("{\"seconds\": %.6f, \"peak_bytes\": %ld, \"status\": %d}\n", now() - begin, used.ru_maxrss * 1024L, status);
}

static void idle(void)
{
    FILE *f = fopen("/proc/stat", "r");
    double t[8] = { 0 }, total = 0;
    if (f) {
        if (fscanf(f, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6], &t[7]) != 8) t[3] = 1;
        fclose(f);
    }
    for (int i = 0; i < 8; i++) total += t[i];
    const double second = (double)sysconf(_SC_CLK_TCK);
    printf("{\"busy\": %.2f, \"total\": %.2f}\n", (total - t[3] - t[4]) / second, total / second);
}

int main(void)
{
    char line[4096];
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (strcmp(line, "list") == 0)
            printf("{\"peer\": \"machine\", \"threads\": %d, \"workloads\": {}, \"versions\": {}}\n", processors());
        else if (strcmp(line, "peak") == 0) {
            const double all = 1e-9 * rate(processors(), false, PEAK_WINDOW);
            printf("{\"p1\": %.2f, \"p\": %.2f}\n", 1e-9 * rate(1, false, PEAK_WINDOW), all);
        } else if (strncmp(line, "bandwidth ", 10) == 0)
            bandwidth(atof(line + 10));
        else if (strncmp(line, "start ", 6) == 0)
            start(line + 6);
        else if (strncmp(line, "rest ", 5) == 0) {
            const double seconds = atof(line + 5);
            nanosleep(&(struct timespec){ (time_t)seconds, (long)(1e9 * (seconds - (double)(time_t)seconds)) }, NULL);
            printf("{}\n");
        } else if (strcmp(line, "idle") == 0)
            idle();
        else if (strcmp(line, "quit") == 0)
            break;
        else
            printf("{\"error\": \"unknown command\"}\n");
    }
    return 0;
}
