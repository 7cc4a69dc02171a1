/* The single-producer single-consumer byte ring over shm/ring.h.
 *
 * Concurrency: one producer and one consumer, in any two threads or processes; every operation but the waits is
 * wait-free. Each side keeps what it relies on (addresses, size, its own position) in a private struct that the other
 * side cannot reach; the shared words are only told to the other side, never read back, except once by *_attach.
 * What the other side says is read once, bounded, then used: a liar can make the ring useless, not unsafe.
 *
 * A ring takes three addresses, so that a channel can put each where only its writer may write:
 *    data and the producer's words (written by the producer) | the consumer's words (written by the consumer)
 *
 *    producer   claim -> fill -> stage -> publish      (commit = stage and publish; abort forgets the claim)
 *    consumer   poll -> read -> release                (release frees a prefix; rewind polls unreleased records again)
 *
 *    released             polled        published      staged   claimed
 *       head ---------------> read ------> tail ---------> tail -----> (private)
 *       consumer's word       private      producer's word  private
 *
 * Labels: "SYNC: records" publish -> poll; "SYNC: space" release -> claim; "SYNC: closed"; "SYNC: sleeper" (sym_bell.h). */
#ifndef SYM_RING_OPERATIONS_H
#define SYM_RING_OPERATIONS_H
#include <stdint.h>
#include "../shm/ring.h"

typedef struct {
    uint8_t *data;
    uint64_t size;
    uint64_t tail;              /* end of what is staged */
    uint64_t published;         /* end of what is published: the shared tail */
    uint64_t head_seen;         /* the consumer's head when last looked at */
    uint64_t claim_position;    /* where the open claim's record starts, after a pad */
    uint64_t claim_end;         /* where it ends */
    uint32_t claim_open;
    int32_t error;              /* SYM_E_CORRUPT once the consumer's head was out of bounds */
    sym_ring_producer_t *producer;
    sym_ring_consumer_t *consumer;
} sym_producer_t;

typedef struct {
    const uint8_t *data;
    uint64_t size;
    uint64_t head;              /* end of what is released: the shared head */
    uint64_t read;              /* end of what was polled */
    uint64_t tail_seen;         /* the producer's tail when last looked at */
    sym_ring_producer_t *producer;
    sym_ring_consumer_t *consumer;
} sym_consumer_t;

/* A record as polled: header already copied into private memory, payload still in the ring until released. */
typedef struct {
    uint64_t address;           /* of the payload, 8-aligned */
    uint64_t position;          /* of the record's header */
    uint64_t end;               /* give it to release to free everything up to and with this record */
    uint32_t length;            /* of the payload */
    uint16_t kind;
    uint16_t flags;
} sym_view_t;

/* An empty ring: the own side's shared words become zero. 0, SYM_E_SIZE or SYM_E_ALIGN. Each side calls its own,
 * before the other side may use the ring. */
int sym_ring_producer_init_spsc(sym_producer_t *p, void *data, uint64_t size, sym_ring_producer_t *producer,
                                sym_ring_consumer_t *consumer);
int sym_ring_consumer_init_spsc(sym_consumer_t *c, const void *data, uint64_t size, sym_ring_producer_t *producer,
                                sym_ring_consumer_t *consumer);

/* Go on from the own side's shared words (a restart over live memory). What was staged and not published is gone,
 * what was polled and not released comes again. SYM_E_CORRUPT when the own word cannot be: then the memory is not to
 * be trusted at all. */
int sym_ring_producer_attach_spsc(sym_producer_t *p, void *data, uint64_t size, sym_ring_producer_t *producer,
                                  sym_ring_consumer_t *consumer);
int sym_ring_consumer_attach_spsc(sym_consumer_t *c, const void *data, uint64_t size, sym_ring_producer_t *producer,
                                  sym_ring_consumer_t *consumer);

/* 1 if a record of this payload length can ever lie in the ring: header and payload take at most half of it. */
int sym_ring_fits(const sym_producer_t *p, uint32_t length);

/* Takes room for a record and gives the address of its payload (8-aligned); NULL when the ring is full, the record
 * can never fit, the kind is the ring's own (below SYM_RECORD_USER) or p->error is set. One claim is open at a time:
 * a second claim replaces the first. */
void *sym_ring_claim_spsc(sym_producer_t *p, uint32_t kind, uint32_t length);

/* Position of the open claim's record. */
uint64_t sym_ring_position_spsc(const sym_producer_t *p);

/* Ends the open claim without showing it to the consumer; nothing without one. */
void sym_ring_stage_spsc(sym_producer_t *p);

/* Shows everything staged to the consumer. Afterwards the caller looks whether the consumer sleeps (sym_bell.h). */
void sym_ring_publish_spsc(sym_producer_t *p);

void sym_ring_commit_spsc(sym_producer_t *p);
void sym_ring_abort_spsc(sym_producer_t *p);

/* Bytes that the producer could still stage, pads not counted, by the head as it is now. */
uint64_t sym_ring_space_spsc(sym_producer_t *p);

/* SYM_E_CORRUPT once the consumer's head was out of bounds: every claim is refused from then on. Otherwise 0. */
int sym_ring_producer_error_spsc(const sym_producer_t *p);

/* Up to n further records into views, without releasing them. How many, or SYM_E_CORRUPT: a tail or a header out of
 * bounds; the read position then stands before the damage. */
int sym_ring_poll_spsc(sym_consumer_t *c, sym_view_t *views, int n);

/* Frees everything up to `end`, a view's end. Ends outside (head, read] are ignored, so a repeated release does no
 * harm. Afterwards the caller looks whether the producer sleeps. */
void sym_ring_release_spsc(sym_consumer_t *c, uint64_t end);

/* Polls again from what was released last. */
void sym_ring_rewind_spsc(sym_consumer_t *c);

/* Tell the other side that no more comes, or that nobody reads on. The caller rings its bell afterwards. */
void sym_ring_producer_close_spsc(sym_producer_t *p);
void sym_ring_consumer_close_spsc(sym_consumer_t *c);

/* Waits for records that were not polled yet: spins spin_ns, then sleeps on the bell, timeout_ns in all.
 * 1: there are some; 0: timed out; SYM_E_CLOSED: the producer closed and everything was polled. own_sleeping is the
 * consumer's flag that the producer looks at, bell what the producer rings. Changes no private state. */
int sym_ring_wait_spsc(const sym_consumer_t *c, uint32_t *own_sleeping, const uint32_t *bell, int64_t spin_ns,
                       int64_t timeout_ns);

/* Waits until a record of this payload length could be claimed. 1, 0, SYM_E_CLOSED: the consumer closed, or
 * SYM_E_SIZE: it can never fit. Publish first: the consumer cannot free what it was not shown. */
int sym_ring_wait_space_spsc(sym_producer_t *p, uint32_t length, uint32_t *own_sleeping, const uint32_t *bell,
                             int64_t spin_ns, int64_t timeout_ns);
#endif
