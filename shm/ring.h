/* The single-producer single-consumer byte ring. Positions are 64-bit byte counts that never wrap in
 * practice; data is a power of two in size. A record is this header and its bytes, 8-aligned; a pad
 * record fills the end. A record takes at most half the ring, so that one always fits after a pad.
 *
 *    head (consumer) <= positions of live records < tail (producer) <= head + capacity
 */
#ifndef SYM_RING_H
#define SYM_RING_H
#include <stdint.h>

typedef struct {
    uint32_t length;            /* w:producer r:consumer | payload bytes, without header and padding */
    uint16_t kind;              /* w:producer r:consumer | enum sym_record_kind */
    uint16_t flags;             /* w:producer r:consumer | meaning by kind */
} sym_record_t;

typedef struct {
    uint64_t tail;              /* w:producer:exchange r:consumer:acquire | end of what is committed, each record a sym_record_t and its payload */
    uint32_t closed;            /* w:producer:release r:consumer:acquire | 1: nothing follows the tail */
    uint32_t sleeping;          /* w:producer:exchange r:consumer:seq_cst | 1: waits for space */
    uint8_t pad0[112];
} sym_ring_producer_t;

typedef struct {
    uint64_t head;              /* w:consumer:exchange r:producer:acquire | end of what is released */
    uint32_t closed;            /* w:consumer:release r:producer:acquire | 1: nobody will read on */
    uint32_t sleeping;          /* w:consumer:exchange r:producer:seq_cst | 1: waits for records */
    uint8_t pad0[112];
} sym_ring_consumer_t;

/* Both bells of a bare ring (its two sides are one trust domain): a futex word a side. */
typedef struct {
    uint32_t consumer_bell;     /* w:producer:rmw r:consumer:acquire | counts rings; futex */
    uint8_t pad0[124];
    uint32_t producer_bell;     /* w:consumer:rmw r:producer:acquire | counts rings; futex */
    uint8_t pad1[124];
} sym_ring_bells_t;

/* A snapshot that one writer changes and many read: odd while a change is under way. */
typedef struct {
    uint64_t sequence;          /* w:one:release r:any:acquire | odd: being written */
} sym_seqlock_t;
#endif
