/* Arbitration Engine: named capacities. A vector is taken whole or not at all. */
#ifndef SYM_ARBITER_H
#define SYM_ARBITER_H
#include <stdint.h>

typedef struct {
    uint8_t name[32];           /* w:clerk r:any | */
    uint64_t capacity;          /* w:clerk:relaxed r:any:relaxed | */
    uint64_t used;              /* w:loop:relaxed r:any:relaxed | by nodes in flight, derived */
    uint64_t refused;           /* w:loop:relaxed r:any:relaxed | decisions put off because of it */
    uint64_t granted;           /* w:loop:relaxed r:any:relaxed | */
    uint8_t pad0[64];
} sym_resource_t;
#endif
