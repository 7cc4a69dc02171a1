/* The only place in C that spells a memory order. Everything else names what it needs by these functions, so that
 * a search finds every use, and symphony/native/atomics.py repeats the same names for compiled Python.
 *
 * Orders: relaxed where nothing else is published by the word; acquire and release where a word publishes what was
 * written before it; seq_cst read-modify-writes and loads where two sides may sleep on each other (each first changes
 * its own word, then looks at the other's). There are no stand-alone fences: the thread sanitizer understands
 * operations on words, not fences.
 *
 * The words are plain integers in mapped memory, hence the compiler's builtins and not _Atomic, which would be
 * another type for every header that Python and the compiled kernels read as well. */
#ifndef SYM_ATOMIC_H
#define SYM_ATOMIC_H
#include <stdint.h>

_Static_assert(__atomic_always_lock_free(8, 0), "64-bit atomics must be lock-free to work between processes");
_Static_assert(__atomic_always_lock_free(4, 0), "32-bit atomics must be lock-free to work between processes");

#define SYM_ATOMIC_OPERATIONS(T, BITS)                                                                                  \
    static inline T sym_load_relaxed_##BITS(const T *word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }          \
    static inline T sym_load_acquire_##BITS(const T *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }          \
    static inline T sym_load_seq_cst_##BITS(const T *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }          \
    static inline void sym_store_relaxed_##BITS(T *word, T value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }  \
    static inline void sym_store_release_##BITS(T *word, T value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }  \
    static inline T sym_exchange_##BITS(T *word, T value) { return __atomic_exchange_n(word, value, __ATOMIC_SEQ_CST); }\
    static inline T sym_fetch_add_##BITS(T *word, T value) { return __atomic_fetch_add(word, value, __ATOMIC_SEQ_CST); }\
    static inline int sym_compare_exchange_##BITS(T *word, T expected, T desired)                                       \
    {                                                                                                                   \
        return __atomic_compare_exchange_n(word, &expected, desired, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);            \
    }

SYM_ATOMIC_OPERATIONS(uint32_t, u32)
SYM_ATOMIC_OPERATIONS(uint64_t, u64)
#undef SYM_ATOMIC_OPERATIONS

/* Tells the processor that a loop spins, so that a sibling thread gets its turn. */
static inline void sym_spin_hint(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}
#endif
