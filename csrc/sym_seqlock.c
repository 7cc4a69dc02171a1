#include "sym_seqlock.h"

#include "sym_atomic.h"
#include "sym_error.h"

void sym_seqlock_write(sym_seqlock_t *lock, void *block, const void *from, uint64_t size_bytes)
{
    uint64_t *to = block;
    const uint64_t *source = from;
    /* A writer that died in the middle left the count odd: the next one goes on from there. */
    uint64_t odd = sym_load_relaxed_u64(&lock->sequence) | 1;
    sym_exchange_u64(&lock->sequence, odd);
    for (uint64_t i = 0; i < size_bytes / 8; i++) {
        /* SYNC: seqlock words. A release, so that whoever sees this word also sees the odd count before it. */
        sym_store_release_u64(to + i, source[i]);
    }
    /* SYNC: seqlock count. A release: without it a reader could find the even count before the last words. */
    sym_store_release_u64(&lock->sequence, odd + 1);
}

int sym_seqlock_read(const sym_seqlock_t *lock, const void *block, void *to, uint64_t size_bytes, int tries)
{
    const uint64_t *from = block;
    uint64_t *copy = to;
    while (tries-- > 0) {
        /* SYNC: seqlock count. An acquire: without it words from before the count's change could be taken for new. */
        uint64_t before = sym_load_acquire_u64(&lock->sequence);
        if (before & 1) {
            sym_spin_hint();
            continue;
        }
        for (uint64_t i = 0; i < size_bytes / 8; i++) {
            /* SYNC: seqlock words. An acquire, so that the second look below cannot move before this load. */
            copy[i] = sym_load_acquire_u64(from + i);
        }
        if (sym_load_relaxed_u64(&lock->sequence) == before)
            return 0;
    }
    return SYM_E_BUSY;
}
