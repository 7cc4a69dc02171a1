/* A channel: how one player and the Conductor talk. Two segments, one a direction of writing.
 *
 *   out (named shm, the extension maps it read-only): channel_out | dispatch ring's producer words and data |
 *        command ring's consumer words
 *   in  (memfd sealed against shrink and grow, the Conductor maps it read-only): channel_in | command ring's
 *        producer words and data | dispatch ring's consumer words | arena
 *
 * The bell towards the extension is a futex on channel_out.bell; the bell towards the Conductor is a pipe.
 * The arena is the extension's memory for outputs: taken front to back like a ring, given back by
 * channel_out.arena_head once the Conductor has copied what lay there. */
#ifndef SYM_CHANNEL_H
#define SYM_CHANNEL_H
#include <stdint.h>

typedef struct {
    uint32_t bell;              /* w:conductor:rmw r:extension:acquire | futex; counts rings */
    uint8_t pad0[124];
    uint32_t sleeping;          /* w:conductor:exchange r:extension:seq_cst | 1: parked, ring the pipe */
    uint8_t pad1[124];
    uint64_t arena_head;        /* w:conductor:release r:extension:acquire | arena bytes given back, a position */
    uint64_t arena_end;         /* w:conductor r:conductor | end of what applied records name: given back once nothing of it is read */
    uint64_t command_bytes;     /* w:conductor r:conductor | size of the command ring: its own segment's directory is the extension's to change */
    uint64_t arena_bytes;       /* w:conductor r:conductor | size of the arena */
    uint8_t pad2[96];
} sym_channel_out_t;

typedef struct {
    uint64_t working;           /* w:extension:release r:conductor:acquire | dispatch position being worked on, ~0 when idle; a hint */
    uint64_t progress;          /* w:extension:relaxed r:conductor:relaxed | counts finished handlers; a hung player's stands still */
    uint8_t pad0[112];
    uint32_t sleeping;          /* w:extension:exchange r:conductor:seq_cst | 1: parked on the bell */
    uint8_t pad1[124];
} sym_channel_in_t;

/* Where a value lies, resolved so that a reader needs no table. first/count choose items of a list;
 * count 0 means the value whole. */
typedef struct {
    uint32_t segment;           /* w:conductor r:extension | id of a granted segment, 0: nowhere (none) */
    uint16_t kind;              /* w:conductor r:extension | enum sym_value_kind of the value at offset */
    uint16_t slot;              /* w:conductor r:extension | which input of the step this belongs to */
    uint64_t offset_bytes;      /* w:conductor r:extension | from the segment's start, a multiple of 64 */
    uint64_t size_bytes;        /* w:conductor r:extension | of the value */
    uint32_t first;             /* w:conductor r:extension | first item */
    uint32_t count;             /* w:conductor r:extension | items; 0: the whole value. In a node's output: the list's item count */
} sym_ref_t;

typedef struct {
    uint32_t run;               /* w:conductor r:extension | row of the run */
    uint32_t node;              /* w:conductor r:extension | */
    uint32_t run_generation;    /* w:conductor r:extension | */
    uint16_t attempt;           /* w:conductor r:extension | 1 at the first */
    uint16_t flags;             /* w:conductor r:extension | 1: refs lie in memory, at the one ref that follows the binding */
    uint32_t input_count;       /* w:conductor r:extension | refs that follow the binding (or lie where it says) */
    uint32_t step;              /* w:conductor r:extension | */
    uint64_t deadline_ns;       /* w:conductor r:extension | monotonic, 0: none */
    sym_ref_t binding;          /* w:conductor r:extension | msgpack: handler, arguments, outputs */
} sym_dispatch_t;

typedef struct {
    uint32_t run;               /* w:extension r:conductor:once | echoed, checked */
    uint32_t node;              /* w:extension r:conductor:once | echoed, checked */
    uint32_t run_generation;    /* w:extension r:conductor:once | echoed, checked */
    uint16_t attempt;           /* w:extension r:conductor:once | echoed, checked */
    uint16_t outcome;           /* w:extension r:conductor:once | enum sym_outcome */
    uint32_t output_count;      /* w:extension r:conductor:once | sym_output_t rows that follow, bounded */
    uint32_t reserved;
    uint64_t started_ns;        /* w:extension r:conductor:once | CLOCK_MONOTONIC */
    uint64_t ended_ns;          /* w:extension r:conductor:once | CLOCK_MONOTONIC */
} sym_completion_t;

typedef struct {
    uint16_t home;              /* w:extension r:conductor:once | enum sym_home */
    uint16_t kind;              /* w:extension r:conductor:once | enum sym_value_kind */
    uint32_t count;             /* w:extension r:conductor:once | items of a list */
    uint64_t offset_bytes;      /* w:extension r:conductor:once | inline: from the payload's start; arena: a position */
    uint64_t size_bytes;        /* w:extension r:conductor:once | */
} sym_output_t;

typedef struct {
    uint32_t run;               /* w:extension r:conductor:once | */
    uint32_t node;              /* w:extension r:conductor:once | */
    uint32_t run_generation;    /* w:extension r:conductor:once | */
    uint16_t attempt;           /* w:extension r:conductor:once | */
    uint16_t output;            /* w:extension r:conductor:once | which output of the node */
    uint64_t total_bytes;       /* w:extension r:conductor:once | of the whole output */
    uint64_t at_bytes;          /* w:extension r:conductor:once | where in it this piece goes; pieces come in order */
    uint64_t offset_bytes;      /* w:extension r:conductor:once | arena position of the piece */
    uint64_t size_bytes;        /* w:extension r:conductor:once | of the piece */
} sym_part_t;

typedef struct {
    uint32_t run;               /* w:extension r:conductor:once | */
    uint32_t node;              /* w:extension r:conductor:once | ~0: no node */
    uint32_t level;             /* w:extension r:conductor:once | as logging's */
    uint32_t size_bytes;        /* w:extension r:conductor:once | text that follows */
} sym_log_t;
#endif
