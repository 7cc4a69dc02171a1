#include "sym_stamp.h"

#include "../shm/types.h"
#include "sym_atomic.h"
#include "sym_error.h"

#define MAGIC UINT64_C(0x594e4f48504d5953)

uint64_t sym_stamp_magic(void) { return MAGIC; }

void sym_stamp_publish(sym_stamp_t *stamp)
{
    sym_store_release_u64(&stamp->state, SYM_SEGMENT_LIVE);
    /* SYNC: stamp. Last, and a release: without it a reader could find the magic before the tables behind it. */
    sym_store_release_u64(&stamp->magic, MAGIC);
}

void sym_stamp_clear(sym_stamp_t *stamp)
{
    /* An exchange, so that no later change to the segment can be seen by somebody who still finds the magic. */
    sym_exchange_u64(&stamp->magic, 0);
    sym_store_release_u64(&stamp->state, SYM_SEGMENT_CLOSING);
}

int sym_stamp_check(const sym_stamp_t *stamp, uint32_t kind, uint64_t fingerprint, uint64_t size_bytes)
{
    /* SYNC: stamp. First, and an acquire: without it the fields below could be read before they were written. */
    uint64_t magic = sym_load_acquire_u64(&stamp->magic);
    if (magic == 0)
        return SYM_E_FRESH;
    if (magic != MAGIC)
        return SYM_E_MAGIC;
    if (sym_load_relaxed_u32(&stamp->abi) != SYM_ABI_VERSION)
        return SYM_E_ABI;
    if (sym_load_relaxed_u64(&stamp->fingerprint) != fingerprint)
        return SYM_E_LAYOUT;
    if (sym_load_relaxed_u64(&stamp->size_bytes) != size_bytes)
        return SYM_E_SIZE;
    if (kind != 0 && sym_load_relaxed_u32(&stamp->kind) != kind)
        return SYM_E_KIND;
    return 0;
}
