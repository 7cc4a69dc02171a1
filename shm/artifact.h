/* Artifact Store: a row an artifact. A node's outputs need no row: their place stands beside the node.
 * A row is for what was put, named, hashed or outlives its run. */
#ifndef SYM_ARTIFACT_H
#define SYM_ARTIFACT_H
#include <stdint.h>

typedef struct {
    uint64_t word;              /* w:clerk:release r:any:acquire | {state 4 | 28 zero | generation 32}, enum sym_artifact_state */
    uint64_t offset_bytes;      /* w:clerk r:any | */
    uint64_t size_bytes;        /* w:clerk r:any | */
    uint32_t segment;           /* w:clerk r:any | id */
    uint16_t kind;              /* w:clerk r:any | enum sym_value_kind */
    uint16_t hashed;            /* w:clerk:release r:any:acquire | 1: id holds */
    uint32_t count;             /* w:clerk r:any | items of a list */
    uint32_t run;               /* w:clerk r:any | row of the run that made it, ~0: put from outside */
    uint32_t node;              /* w:clerk r:any | */
    uint32_t reserved;
    uint64_t made_ns;           /* w:clerk r:any | CLOCK_MONOTONIC */
    uint8_t id[32];             /* w:clerk r:any | BLAKE3 by kind */
    uint8_t pad0[40];
} sym_artifact_t;

/* A segment that the engine made: id is its row. */
typedef struct {
    uint64_t word;              /* w:clerk:release r:any:acquire | {1: live | 0: free} */
    uint8_t name[80];           /* w:clerk r:any | POSIX name */
    uint64_t size_bytes;        /* w:clerk r:any | */
    uint32_t kind;              /* w:clerk r:any | enum sym_segment_kind */
    uint32_t run;               /* w:clerk r:any | run that uses it now, ~0: none */
    uint64_t used_bytes;        /* w:loop:relaxed r:any:relaxed | taken from its front */
    uint32_t id;                /* w:clerk r:any | what refs name it by; never given again. Stays when the row is free */
    uint8_t pad0[12];
} sym_segment_t;
#endif
