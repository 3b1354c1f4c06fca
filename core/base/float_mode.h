/* float_mode.h - denormal numbers count as zero while an op runs.
 *
 * Gradients and optimizer moments decay through the denormal range, where one operation costs a hundred and more cycles. So results below
 * 2^-126 (f32) are flushed to zero and such operands read as zero, in the caller's thread for the time of a call and in the pool's threads
 * always. Eager and replayed steps both run in this mode, so that their bits agree. The host's mode is restored. */
#ifndef BP_FLOAT_MODE_H
#define BP_FLOAT_MODE_H

#if defined(__x86_64__)
enum { BP_FLUSH_BITS = 0x8040 }; /* flush to zero, denormals are zero */
static inline unsigned bp_float_enter(void)
{
    unsigned old = __builtin_ia32_stmxcsr();
    if ((old & BP_FLUSH_BITS) != BP_FLUSH_BITS) __builtin_ia32_ldmxcsr(old | BP_FLUSH_BITS);
    return old;
}
static inline void bp_float_leave(unsigned old)
{
    if ((old & BP_FLUSH_BITS) != BP_FLUSH_BITS) __builtin_ia32_ldmxcsr(old);
}
#elif defined(__aarch64__)
static inline unsigned bp_float_enter(void)
{
    unsigned long old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" : : "r"(old | 1ul << 24));
    return (unsigned)old;
}
static inline void bp_float_leave(unsigned old) { __asm__ volatile("msr fpcr, %0" : : "r"((unsigned long)old)); }
#else
static inline unsigned bp_float_enter(void) { return 0; }
static inline void bp_float_leave(unsigned old) { (void)old; }
#endif

#endif
