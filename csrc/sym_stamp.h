/* The stamp's life: filled in by the maker, published last, cleared first. Whoever attaches checks it before he
 * believes a byte of the segment. */
#ifndef SYM_STAMP_OPERATIONS_H
#define SYM_STAMP_OPERATIONS_H
#include <stdint.h>
#include "../shm/stamp.h"

/* The eight letters SYMPHONY as a word. */
uint64_t sym_stamp_magic(void);

/* Makes the segment attachable: everything before this call is seen by whoever then finds the stamp whole. */
void sym_stamp_publish(sym_stamp_t *stamp);

/* Makes the segment unattachable, before it is unlinked. Those who have it mapped see the state CLOSING. */
void sym_stamp_clear(sym_stamp_t *stamp);

/* 0, or SYM_E_FRESH, SYM_E_MAGIC, SYM_E_ABI, SYM_E_LAYOUT, SYM_E_SIZE, SYM_E_KIND, looked for in this order.
 * size_bytes is what the file really has; kind 0 accepts any. */
int sym_stamp_check(const sym_stamp_t *stamp, uint32_t kind, uint64_t fingerprint, uint64_t size_bytes);
#endif
