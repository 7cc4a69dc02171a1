/* The seqlock: one writer changes a small block in place, any number of readers copy it out whole, without writing
 * a byte (they may map it read-only).
 *
 * There are no fences here, so the block's words carry the order themselves: the writer's are release stores (none
 * becomes visible before the odd count), the reader's are acquire loads (none is taken after the second look at the
 * count). On x86 these are plain moves. */
#ifndef SYM_SEQLOCK_H
#define SYM_SEQLOCK_H
#include <stdint.h>
#include "../shm/ring.h"

/* Writes size_bytes (a multiple of 8, both sides 8-aligned). One writer only. */
void sym_seqlock_write(sym_seqlock_t *lock, void *block, const void *from, uint64_t size_bytes);

/* Copies the block out. 0, or SYM_E_BUSY when a writer was in the way `tries` times (or died in the middle). */
int sym_seqlock_read(const sym_seqlock_t *lock, const void *block, void *to, uint64_t size_bytes, int tries);
#endif
