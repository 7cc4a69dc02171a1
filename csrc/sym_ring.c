/* Contract and drawing: sym_ring.h. All positions are 64-bit byte counts compared by their difference, so a count
 * that passes 2^64 does no harm: the size divides it. */
#include "sym_ring.h"

#include <stddef.h>
#include <string.h>

#include "../shm/types.h"
#include "sym_atomic.h"
#include "sym_bell.h"
#include "sym_clock.h"
#include "sym_error.h"

enum { HEADER = sizeof(sym_record_t), SMALLEST_RING = 256 };

_Static_assert(HEADER == 8, "a header is one word: it is read once, whole");

static uint64_t round_up(uint64_t bytes) { return (bytes + 7) & ~UINT64_C(7); }

static uint64_t record_bytes(uint32_t length) { return round_up((uint64_t)HEADER + length); }

static int aligned(const void *address) { return address != NULL && ((uintptr_t)address & 7) == 0; }

static int check_geometry(const void *data, uint64_t size, const void *producer, const void *consumer)
{
    if (!aligned(data) || !aligned(producer) || !aligned(consumer))
        return SYM_E_ALIGN;
    return size >= SMALLEST_RING && (size & (size - 1)) == 0 ? 0 : SYM_E_SIZE;
}

/* ---- producer ---- */

static int producer_setup(sym_producer_t *p, void *data, uint64_t size, sym_ring_producer_t *producer,
                          sym_ring_consumer_t *consumer)
{
    int code = check_geometry(data, size, producer, consumer);
    if (p == NULL || code)
        return p == NULL ? SYM_E_ALIGN : code;
    memset(p, 0, sizeof *p);
    p->data = data;
    p->size = size;
    p->producer = producer;
    p->consumer = consumer;
    return 0;
}

int sym_ring_producer_init_spsc(sym_producer_t *p, void *data, uint64_t size, sym_ring_producer_t *producer,
                                sym_ring_consumer_t *consumer)
{
    int code = producer_setup(p, data, size, producer, consumer);
    if (code)
        return code;
    sym_store_relaxed_u32(&producer->closed, 0);
    sym_store_relaxed_u32(&producer->sleeping, 0);
    sym_exchange_u64(&producer->tail, 0);
    return 0;
}

int sym_ring_producer_attach_spsc(sym_producer_t *p, void *data, uint64_t size, sym_ring_producer_t *producer,
                                  sym_ring_consumer_t *consumer)
{
    int code = producer_setup(p, data, size, producer, consumer);
    if (code)
        return code;
    uint64_t tail = sym_load_acquire_u64(&producer->tail);
    /* SYNC: space. An acquire: without it the producer could overwrite bytes that the consumer still reads. */
    uint64_t head = sym_load_acquire_u64(&consumer->head);
    if ((tail & 7) || (head & 7) || tail - head > size)
        return SYM_E_CORRUPT;
    p->tail = p->published = tail;
    p->head_seen = head;
    sym_store_relaxed_u32(&producer->sleeping, 0);
    sym_store_release_u32(&producer->closed, 0);
    return 0;
}

/* Looks at the consumer's head again; 0 if it cannot be. */
static int refresh_head(sym_producer_t *p)
{
    /* SYNC: space. An acquire: without it the producer could overwrite bytes that the consumer still reads. */
    uint64_t head = sym_load_acquire_u64(&p->consumer->head);
    if ((head & 7) || head - p->head_seen > p->published - p->head_seen) {
        p->error = SYM_E_CORRUPT;
        return 0;
    }
    p->head_seen = head;
    return 1;
}

int sym_ring_fits(const sym_producer_t *p, uint32_t length) { return record_bytes(length) <= p->size / 2; }

/* Bytes from the staged tail that a record takes, the pad before it included. */
static uint64_t bytes_with_pad(const sym_producer_t *p, uint32_t length)
{
    uint64_t to_wrap = p->size - (p->tail & (p->size - 1)), need = record_bytes(length);
    return need <= to_wrap ? need : to_wrap + need;
}

static int has_space(const sym_producer_t *p, uint64_t bytes) { return bytes <= p->size - (p->tail - p->head_seen); }

static void write_header(sym_producer_t *p, uint64_t position, uint32_t length, uint32_t kind)
{
    sym_record_t header = {.length = length, .kind = (uint16_t)kind, .flags = 0};
    memcpy(p->data + (position & (p->size - 1)), &header, HEADER);
}

void *sym_ring_claim_spsc(sym_producer_t *p, uint32_t kind, uint32_t length)
{
    p->claim_open = 0;
    if (p->error || kind < SYM_RECORD_USER || kind > UINT16_MAX || !sym_ring_fits(p, length))
        return NULL;
    uint64_t bytes = bytes_with_pad(p, length), pad = bytes - record_bytes(length);
    if (!has_space(p, bytes) && !(refresh_head(p) && has_space(p, bytes)))
        return NULL;
    if (pad)
        write_header(p, p->tail, (uint32_t)(pad - HEADER), SYM_RECORD_PAD);
    p->claim_position = p->tail + pad;
    p->claim_end = p->tail + bytes;
    p->claim_open = 1;
    write_header(p, p->claim_position, length, kind);
    return p->data + (p->claim_position & (p->size - 1)) + HEADER;
}

uint64_t sym_ring_position_spsc(const sym_producer_t *p) { return p->claim_position; }

void sym_ring_stage_spsc(sym_producer_t *p)
{
    if (p->claim_open)
        p->tail = p->claim_end;
    p->claim_open = 0;
}

void sym_ring_publish_spsc(sym_producer_t *p)
{
    if (p->published == p->tail)
        return;
    p->published = p->tail;
    /* SYNC: records. The release half: without it the consumer could find the tail before the bytes.
     * SYNC: sleeper. A sequentially consistent exchange, before the caller looks whether the consumer sleeps. */
    sym_exchange_u64(&p->producer->tail, p->tail);
}

void sym_ring_commit_spsc(sym_producer_t *p)
{
    sym_ring_stage_spsc(p);
    sym_ring_publish_spsc(p);
}

void sym_ring_abort_spsc(sym_producer_t *p) { p->claim_open = 0; }

uint64_t sym_ring_space_spsc(sym_producer_t *p)
{
    refresh_head(p);
    return p->error ? 0 : p->size - (p->tail - p->head_seen);
}

int sym_ring_producer_error_spsc(const sym_producer_t *p) { return p->error; }

void sym_ring_producer_close_spsc(sym_producer_t *p)
{
    /* SYNC: closed. A release, after the last publish: whoever sees it has the last tail in reach. */
    sym_store_release_u32(&p->producer->closed, 1);
}

/* ---- consumer ---- */

static int consumer_setup(sym_consumer_t *c, const void *data, uint64_t size, sym_ring_producer_t *producer,
                          sym_ring_consumer_t *consumer)
{
    int code = check_geometry(data, size, producer, consumer);
    if (c == NULL || code)
        return c == NULL ? SYM_E_ALIGN : code;
    memset(c, 0, sizeof *c);
    c->data = data;
    c->size = size;
    c->producer = producer;
    c->consumer = consumer;
    return 0;
}

int sym_ring_consumer_init_spsc(sym_consumer_t *c, const void *data, uint64_t size, sym_ring_producer_t *producer,
                                sym_ring_consumer_t *consumer)
{
    int code = consumer_setup(c, data, size, producer, consumer);
    if (code)
        return code;
    sym_store_relaxed_u32(&consumer->closed, 0);
    sym_store_relaxed_u32(&consumer->sleeping, 0);
    sym_exchange_u64(&consumer->head, 0);
    return 0;
}

int sym_ring_consumer_attach_spsc(sym_consumer_t *c, const void *data, uint64_t size, sym_ring_producer_t *producer,
                                  sym_ring_consumer_t *consumer)
{
    int code = consumer_setup(c, data, size, producer, consumer);
    if (code)
        return code;
    uint64_t head = sym_load_acquire_u64(&consumer->head);
    if (head & 7)
        return SYM_E_CORRUPT;
    c->head = c->read = c->tail_seen = head;
    sym_store_relaxed_u32(&consumer->sleeping, 0);
    sym_store_release_u32(&consumer->closed, 0);
    return 0;
}

/* Looks at the producer's tail again; 0 if it cannot be: further than the ring is long, or behind what it was. */
static int refresh_tail(sym_consumer_t *c)
{
    /* SYNC: records. An acquire: without it the bytes of a record could be read before they were written. */
    uint64_t tail = sym_load_acquire_u64(&c->producer->tail);
    if ((tail & 7) || tail - c->head > c->size || tail - c->head < c->tail_seen - c->head)
        return 0;
    c->tail_seen = tail;
    return 1;
}

/* The header at `position`, read once into private memory. The other side may change it under us: an atomic load
 * keeps the compiler from reading it a second time after the checks. */
static sym_record_t read_header(const sym_consumer_t *c, uint64_t position)
{
    uint64_t word = sym_load_relaxed_u64((const uint64_t *)(const void *)(c->data + (position & (c->size - 1))));
    sym_record_t header;
    memcpy(&header, &word, HEADER);
    return header;
}

/* Bytes that the record takes, or 0 if the header cannot be. */
static uint64_t checked_bytes(const sym_consumer_t *c, uint64_t position, sym_record_t header)
{
    uint64_t bytes = record_bytes(header.length), to_wrap = c->size - (position & (c->size - 1));
    if (bytes > c->size / 2 || bytes > to_wrap || bytes > c->tail_seen - position)
        return 0;
    if (header.kind == SYM_RECORD_PAD)
        return header.length + HEADER == to_wrap ? bytes : 0;
    return header.kind >= SYM_RECORD_USER ? bytes : 0;
}

int sym_ring_poll_spsc(sym_consumer_t *c, sym_view_t *views, int n)
{
    int count = 0;
    while (count < n) {
        if (c->read == c->tail_seen && !refresh_tail(c))
            return count ? count : SYM_E_CORRUPT;
        if (c->read == c->tail_seen)
            return count;
        sym_record_t header = read_header(c, c->read);
        uint64_t bytes = checked_bytes(c, c->read, header);
        if (bytes == 0)
            return count ? count : SYM_E_CORRUPT;
        if (header.kind != SYM_RECORD_PAD) {
            views[count].address = (uint64_t)(uintptr_t)(c->data + (c->read & (c->size - 1)) + HEADER);
            views[count].position = c->read;
            views[count].end = c->read + bytes;
            views[count].length = header.length;
            views[count].kind = header.kind;
            views[count].flags = header.flags;
            count++;
        }
        c->read += bytes;
    }
    return count;
}

void sym_ring_release_spsc(sym_consumer_t *c, uint64_t end)
{
    if (end == c->head || end - c->head > c->read - c->head)
        return;
    c->head = end;
    /* SYNC: space. The release half: without it the producer could write into bytes that are still being read.
     * SYNC: sleeper. A sequentially consistent exchange, before the caller looks whether the producer sleeps. */
    sym_exchange_u64(&c->consumer->head, end);
}

void sym_ring_rewind_spsc(sym_consumer_t *c) { c->read = c->head; }

void sym_ring_consumer_close_spsc(sym_consumer_t *c)
{
    /* SYNC: closed. A release, after the last head: whoever sees it can still tell what was read. */
    sym_store_release_u32(&c->consumer->closed, 1);
}

/* ---- waiting ---- */

/* What a wait asks again and again. 1 yes, 0 not yet, negative never. */
typedef int (*question_t)(const void *side, uint64_t bytes);

static int has_records(const void *side, uint64_t bytes)
{
    const sym_consumer_t *c = side;
    (void)bytes;
    /* SYNC: closed. Loaded before the tail: the other way round a record published in between would be lost. */
    uint32_t closed = sym_load_acquire_u32(&c->producer->closed);
    /* SYNC: sleeper. Sequentially consistent, after the exchange of the own flag. */
    if (sym_load_seq_cst_u64(&c->producer->tail) != c->read)
        return 1;
    return closed ? SYM_E_CLOSED : 0;
}

static int has_room(const void *side, uint64_t bytes)
{
    const sym_producer_t *p = side;
    /* SYNC: closed. Before the head: without it a producer would wait for room that nobody makes. */
    if (sym_load_acquire_u32(&p->consumer->closed))
        return SYM_E_CLOSED;
    /* SYNC: sleeper. Bounded only when it is used: a head that cannot be counts as room, and the claim refuses it. */
    uint64_t used = p->tail - sym_load_seq_cst_u64(&p->consumer->head);
    return used > p->size || bytes <= p->size - used;
}

static int spin(question_t ask, const void *side, uint64_t bytes, int64_t until_ns)
{
    for (;;) {
        for (int turn = 0; turn < 16; turn++) {
            int answer = ask(side, bytes);
            if (answer)
                return answer;
            sym_spin_hint();
        }
        if (sym_now_ns() >= until_ns)
            return 0;
    }
}

static int wait_for(question_t ask, const void *side, uint64_t bytes, uint32_t *sleeping, const uint32_t *bell,
                    int64_t spin_ns, int64_t timeout_ns)
{
    int answer = ask(side, bytes);
    if (answer || timeout_ns <= 0)
        return answer;
    int64_t start = sym_now_ns();
    int64_t deadline = timeout_ns > INT64_MAX - start ? INT64_MAX : start + timeout_ns;
    answer = spin(ask, side, bytes, spin_ns < timeout_ns ? start + spin_ns : deadline);
    while (answer == 0) {
        int64_t left = deadline - sym_now_ns();
        if (left <= 0)
            break;
        uint32_t seen = sym_load_acquire_u32(bell);
        /* SYNC: sleeper. The own flag by an exchange, before the other side's word is loaded. */
        sym_exchange_u32(sleeping, 1);
        answer = ask(side, bytes);
        if (answer == 0)
            sym_bell_wait(bell, seen, left);
        sym_exchange_u32(sleeping, 0);
        if (answer == 0)
            answer = ask(side, bytes);
    }
    return answer;
}

int sym_ring_wait_spsc(const sym_consumer_t *c, uint32_t *own_sleeping, const uint32_t *bell, int64_t spin_ns,
                       int64_t timeout_ns)
{
    return wait_for(has_records, c, 0, own_sleeping, bell, spin_ns, timeout_ns);
}

int sym_ring_wait_space_spsc(sym_producer_t *p, uint32_t length, uint32_t *own_sleeping, const uint32_t *bell,
                             int64_t spin_ns, int64_t timeout_ns)
{
    if (!sym_ring_fits(p, length))
        return SYM_E_SIZE;
    return wait_for(has_room, p, bytes_with_pad(p, length), own_sleeping, bell, spin_ns, timeout_ns);
}
