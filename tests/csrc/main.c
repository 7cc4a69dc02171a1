/* Attacks the C operations from inside: run by test_sanitizers.py under the address, undefined-behaviour and thread
 * sanitizers. Usage: main SEED. Exit 0 and a line a part; anything wrong ends it with a message. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "csrc/sym_atomic.h"
#include "csrc/sym_bell.h"
#include "csrc/sym_clock.h"
#include "csrc/sym_copy.h"
#include "csrc/sym_error.h"
#include "csrc/sym_ring.h"
#include "csrc/sym_seqlock.h"
#include "csrc/sym_stamp.h"
#include "shm/types.h"

#define CHECK(condition)                                                                        \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);             \
            exit(1);                                                                            \
        }                                                                                       \
    } while (0)

enum { MESSAGES = 20000, LIES = 20000, WRITES = 20000, BLOCK = 8, NEXT_RECORD_BYTES = 8 };

static const int64_t PATIENCE_NS = 60000000000;

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* ---- a ring between two threads that sleep on each other ---- */

typedef struct {
    uint8_t *data;
    uint64_t size;
    sym_ring_producer_t producer;
    sym_ring_consumer_t consumer;
    sym_ring_bells_t bells;
    uint64_t seed;
} ring_t;

static uint32_t length_of(uint64_t number, uint64_t size) { return (uint32_t)(number * 2654435761u % (size / 2 - 7)); }

static void *produce(void *argument)
{
    ring_t *ring = argument;
    sym_producer_t p;
    uint64_t random = ring->seed;
    CHECK(sym_ring_producer_attach_spsc(&p, ring->data, ring->size, &ring->producer, &ring->consumer) == 0);
    for (uint64_t i = 0; i < MESSAGES; i++) {
        uint32_t length = length_of(i, ring->size);
        uint8_t *payload;
        while ((payload = sym_ring_claim_spsc(&p, SYM_RECORD_USER + i % 100, length)) == NULL) {
            sym_ring_publish_spsc(&p);
            if (sym_load_seq_cst_u32(&ring->consumer.sleeping))
                sym_bell_ring(&ring->bells.consumer_bell);
            CHECK(sym_ring_wait_space_spsc(&p, length, &ring->producer.sleeping, &ring->bells.producer_bell,
                                           next_random(&random) % 3000, PATIENCE_NS) == 1);
        }
        memset(payload, (int)(i & 255), length);
        sym_ring_stage_spsc(&p);
        if (next_random(&random) % 4 == 0)
            continue;
        sym_ring_publish_spsc(&p);
        if (sym_load_seq_cst_u32(&ring->consumer.sleeping))
            sym_bell_ring(&ring->bells.consumer_bell);
    }
    sym_ring_publish_spsc(&p);
    sym_ring_producer_close_spsc(&p);
    sym_bell_ring(&ring->bells.consumer_bell);
    return NULL;
}

static uint64_t take_records(ring_t *ring, sym_consumer_t *c, uint64_t number, uint64_t *random)
{
    sym_view_t views[16];
    int count = sym_ring_poll_spsc(c, views, 1 + (int)(next_random(random) % 16));
    CHECK(count >= 0);
    for (int v = 0; v < count; v++, number++) {
        const uint8_t *bytes = (const uint8_t *)(uintptr_t)views[v].address;
        CHECK(views[v].length == length_of(number, ring->size));
        CHECK(views[v].kind == SYM_RECORD_USER + number % 100);
        for (uint32_t i = 0; i < views[v].length; i++)
            CHECK(bytes[i] == (uint8_t)number);
    }
    if (count) {
        sym_ring_release_spsc(c, views[count - 1].end);
        if (sym_load_seq_cst_u32(&ring->producer.sleeping))
            sym_bell_ring(&ring->bells.producer_bell);
    }
    return number;
}

static void *consume(void *argument)
{
    ring_t *ring = argument;
    sym_consumer_t c;
    uint64_t random = ring->seed * 3 + 1, number = 0;
    CHECK(sym_ring_consumer_attach_spsc(&c, ring->data, ring->size, &ring->producer, &ring->consumer) == 0);
    for (;;) {
        number = take_records(ring, &c, number, &random);
        int answer = sym_ring_wait_spsc(&c, &ring->consumer.sleeping, &ring->bells.consumer_bell,
                                        next_random(&random) % 3000, PATIENCE_NS);
        if (answer == SYM_E_CLOSED)
            break;
        CHECK(answer == 1);
    }
    CHECK(number == MESSAGES);
    return NULL;
}

static void run_ring(uint64_t size, uint64_t start, uint64_t seed)
{
    ring_t ring = {.data = aligned_alloc(8, size), .size = size, .seed = seed};
    pthread_t threads[2];
    CHECK(ring.data);
    ring.producer.tail = ring.consumer.head = start;
    CHECK(pthread_create(&threads[0], NULL, produce, &ring) == 0);
    CHECK(pthread_create(&threads[1], NULL, consume, &ring) == 0);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    CHECK(ring.producer.tail == ring.consumer.head);
    free(ring.data);
    printf("ring of %llu from %llu: %d records\n", (unsigned long long)size, (unsigned long long)start, MESSAGES);
}

/* ---- the other side lies ---- */

static uint64_t any_word(uint64_t *random)
{
    uint64_t word = next_random(random);
    switch (word % 5) {
    case 0: return word;
    case 1: return word >> 40;
    case 2: return (word >> 50) & ~UINT64_C(7);
    case 3: return UINT64_MAX - (word >> 55);
    default: return (word >> 52) * 8;
    }
}

/* Whatever the words and headers say, a view lies inside the ring: the sanitizer watches the bytes around it. */
static void lie_to_consumer(uint64_t seed)
{
    uint64_t random = seed, sum = 0, refused = 0;
    uint8_t *data = aligned_alloc(8, 256);
    for (int i = 0; i < LIES; i++) {
        sym_ring_producer_t producer = {0};
        sym_ring_consumer_t consumer = {.head = any_word(&random) & ~UINT64_C(7)};
        sym_consumer_t c;
        sym_view_t views[64];
        for (int w = 0; w < 32; w++)
            ((uint64_t *)(void *)data)[w] = next_random(&random) % 3 ? any_word(&random) & 0xff0000007f : any_word(&random);
        CHECK(sym_ring_consumer_attach_spsc(&c, data, 256, &producer, &consumer) == 0);
        producer.tail = next_random(&random) % 2 ? consumer.head + (next_random(&random) % 40) * 8 : any_word(&random);
        int count = sym_ring_poll_spsc(&c, views, 64);
        CHECK(count == SYM_E_CORRUPT || (count >= 0 && count <= 64));
        refused += count < 0;
        for (int v = 0; v < count; v++)
            for (uint32_t b = 0; b < views[v].length; b++)
                sum += ((const uint8_t *)(uintptr_t)views[v].address)[b];
        if (count > 0)
            sym_ring_release_spsc(&c, any_word(&random));
        CHECK(c.read - c.head <= 256);
    }
    free(data);
    printf("lies to the consumer: %llu of %d refused (%llu)\n", (unsigned long long)refused, LIES, (unsigned long long)sum);
}

static void lie_to_producer(uint64_t seed)
{
    uint64_t random = seed, refused = 0;
    uint8_t *data = aligned_alloc(8, 256);
    for (int i = 0; i < LIES; i++) {
        sym_ring_producer_t producer = {0};
        sym_ring_consumer_t consumer = {0};
        sym_producer_t p;
        CHECK(sym_ring_producer_init_spsc(&p, data, 256, &producer, &consumer) == 0);
        for (int step = 0; step < 40; step++) {
            uint32_t length = (uint32_t)(next_random(&random) % 140);
            uint8_t *payload = sym_ring_claim_spsc(&p, SYM_RECORD_USER, length);
            if (payload) {
                CHECK(payload >= data + NEXT_RECORD_BYTES && payload + length <= data + 256);
                memset(payload, step, length);
                sym_ring_commit_spsc(&p);
            }
            if (next_random(&random) % 3 == 0)
                consumer.head = next_random(&random) % 2 ? any_word(&random) : consumer.head + 8;
        }
        refused += p.error == SYM_E_CORRUPT;
    }
    free(data);
    printf("lies to the producer: %llu of %d refused\n", (unsigned long long)refused, LIES);
}

/* ---- seqlock, stamp, the rest ---- */

typedef struct {
    sym_seqlock_t lock;
    uint64_t block[BLOCK];
    uint64_t ended;
} shared_block_t;

static void *write_blocks(void *argument)
{
    shared_block_t *shared = argument;
    for (uint64_t i = 1; i <= WRITES; i++) {
        uint64_t block[BLOCK];
        for (int w = 0; w < BLOCK; w++)
            block[w] = i * 1000 + (uint64_t)w;
        sym_seqlock_write(&shared->lock, shared->block, block, sizeof block);
    }
    sym_store_release_u64(&shared->ended, 1);
    return NULL;
}

static void run_seqlock(void)
{
    shared_block_t shared = {0};
    uint64_t block[BLOCK], reads = 0, last = 0;
    pthread_t writer;
    for (int w = 0; w < BLOCK; w++)
        shared.block[w] = (uint64_t)w;
    CHECK(pthread_create(&writer, NULL, write_blocks, &shared) == 0);
    while (!sym_load_acquire_u64(&shared.ended) || last != WRITES) {
        if (sym_seqlock_read(&shared.lock, shared.block, block, sizeof block, 100))
            continue;
        for (int w = 0; w < BLOCK; w++)
            CHECK(block[w] == block[0] + (uint64_t)w);
        CHECK(block[0] / 1000 >= last);
        last = block[0] / 1000;
        reads++;
    }
    pthread_join(writer, NULL);
    shared.lock.sequence |= 1;
    CHECK(sym_seqlock_read(&shared.lock, shared.block, block, sizeof block, 10) == SYM_E_BUSY);
    sym_seqlock_write(&shared.lock, shared.block, block, sizeof block);
    CHECK(sym_seqlock_read(&shared.lock, shared.block, block, sizeof block, 10) == 0);
    printf("seqlock: whole blocks only\n");
}

static void run_stamp(void)
{
    sym_stamp_t stamp = {.abi = SYM_ABI_VERSION, .kind = SYM_SEGMENT_RUN, .fingerprint = 7, .size_bytes = 4096};
    CHECK(sym_stamp_check(&stamp, SYM_SEGMENT_RUN, 7, 4096) == SYM_E_FRESH);
    sym_stamp_publish(&stamp);
    CHECK(memcmp(&stamp.magic, "SYMPHONY", 8) == 0 && stamp.state == SYM_SEGMENT_LIVE);
    CHECK(sym_stamp_check(&stamp, SYM_SEGMENT_RUN, 7, 4096) == 0 && sym_stamp_check(&stamp, 0, 7, 4096) == 0);
    CHECK(sym_stamp_check(&stamp, SYM_SEGMENT_RING, 7, 4096) == SYM_E_KIND);
    CHECK(sym_stamp_check(&stamp, SYM_SEGMENT_RUN, 8, 4096) == SYM_E_LAYOUT);
    CHECK(sym_stamp_check(&stamp, SYM_SEGMENT_RUN, 7, 8192) == SYM_E_SIZE);
    stamp.abi++;
    CHECK(sym_stamp_check(&stamp, SYM_SEGMENT_RUN, 8, 8192) == SYM_E_ABI);
    stamp.magic++;
    CHECK(sym_stamp_check(&stamp, SYM_SEGMENT_RUN, 7, 4096) == SYM_E_MAGIC);
    sym_stamp_clear(&stamp);
    CHECK(sym_stamp_check(&stamp, SYM_SEGMENT_RUN, 7, 4096) == SYM_E_FRESH && stamp.state == SYM_SEGMENT_CLOSING);
    printf("stamp: refuses what does not match\n");
}

static void run_bells(void)
{
    uint32_t bell = 5;
    int fds[2];
    CHECK(sym_bell_wait(&bell, 5, 0) == 0 && sym_bell_wait(&bell, 5, 1000000) == 0);
    sym_bell_ring(&bell);
    CHECK(bell == 6 && sym_bell_wait(&bell, 5, 0) == 1 && sym_bell_wait(&bell, 5, PATIENCE_NS) == 1);
    CHECK(pipe2(fds, 02000000 | 04000) == 0);
    CHECK(sym_bell_pipe_drain(fds[0]) == 0);
    for (int i = 0; i < 70000; i++)
        CHECK(sym_bell_pipe_ring(fds[1]) == 0);
    CHECK(sym_bell_pipe_drain(fds[0]) >= 65536 && sym_bell_pipe_drain(fds[0]) == 0);
    close(fds[0]);
    close(fds[1]);
    CHECK(sym_bell_pipe_ring(fds[1]) < 0 && sym_bell_pipe_drain(fds[0]) < 0 && sym_park(-1, 0) < 0);
    int64_t now = sym_now_ns();
    CHECK(now > 0 && sym_now_ns() >= now && sym_now_coarse_ns() > 0);
    CHECK(sym_process_start(getpid()) > 0 && sym_process_start(0x7ffffff0) == 0);
    char copy[6];
    sym_copy(copy, "bytes", 6);
    CHECK(strcmp(copy, "bytes") == 0);
    printf("bells and clock\n");
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) | 1 : 1;
    run_stamp();
    run_bells();
    run_seqlock();
    lie_to_consumer(seed);
    lie_to_producer(seed);
    run_ring(256, 0, seed);
    run_ring(4096, UINT64_C(0) - 512, seed);
    run_ring(65536, (UINT64_C(1) << 32) - 8, seed);
    return 0;
}
