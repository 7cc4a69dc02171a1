/* The stamp: the first 256 bytes of every segment, and the directory of regions that follows it.
 * A segment describes itself: the region named "layout" holds the text of its structs' layout, so that a
 * tool of another version can read it. Stored last at creation, cleared first at removal: a half-made
 * segment cannot be attached. */
#ifndef SYM_STAMP_H
#define SYM_STAMP_H
#include <stdint.h>

enum { SYM_NAME_BYTES = 32, SYM_STAMP_BYTES = 256 };

typedef struct {
    uint64_t magic;             /* w:maker:release r:any:acquire | "SYMPHONY" when whole, 0 before and after */
    uint32_t abi;               /* w:maker r:any | SYM_ABI_VERSION, for people */
    uint32_t kind;              /* w:maker r:any | enum sym_segment_kind */
    uint64_t fingerprint;       /* w:maker r:any | hash of the whole layout's text: the truth about compatibility */
    uint64_t size_bytes;        /* w:maker r:any | of the segment */
    uint64_t generation;        /* w:maker r:any | of the engine's life; of the channel in a channel */
    uint64_t owner_start;       /* w:maker r:any | the maker's start time, clock ticks after boot */
    uint32_t owner_pid;         /* w:maker r:any | */
    uint32_t region_count;      /* w:maker r:any | rows of the directory that follows the stamp */
    uint8_t boot_id[16];        /* w:maker r:any | kernel boot id, so that a pid of an earlier boot is not believed */
    uint8_t instance[32];       /* w:maker r:any | the engine's name, zero-padded UTF-8 */
    uint64_t heartbeat_ns;      /* w:maker:relaxed r:any:relaxed | CLOCK_MONOTONIC, a hint */
    uint64_t state;             /* w:maker:release r:any:acquire | enum sym_segment_state */
    uint64_t keeper_start;      /* w:conductor r:any | of the engine's Keeper, in the state segment: while it lives the engine does, Conductor or not */
    uint32_t keeper_pid;        /* w:conductor r:any | 0: none */
    uint32_t stays;             /* w:conductor r:any | 1: after a crash it is gone on from; other engines' starts leave it alone */
    uint64_t pid_namespace;     /* w:maker r:any | inode number of the owner's and its Keeper's: a pid of another one is not to be judged; 0: not told */
    uint8_t pad0[112];
} sym_stamp_t;

typedef struct {
    uint8_t name[32];           /* w:maker r:any | of the region */
    uint8_t type[32];           /* w:maker r:any | a struct of the layout, u8, u32, u64 or text */
    uint64_t offset_bytes;      /* w:maker r:any | from the segment's start, a multiple of 128 */
    uint64_t count;             /* w:maker r:any | rows */
    uint64_t stride_bytes;      /* w:maker r:any | size of a row */
    uint64_t reserved;
} sym_region_t;
#endif
