/* The player's end of a channel, as one Python type: what an extension process does for every step.
 *
 *    next()      takes a dispatch: copies it out of the ring, finds its plan, releases the record, says what it works on
 *    value()     makes one input a Python object: bytes, text, or a memoryview of the mapped segment
 *    complete()  answers with one small value; finish() with any number of values of any size
 *
 * Outputs that fit together into SYM_LIMIT_INLINE_BYTES ride in the record. The others lie in the arena while they
 * fit into half of it together; what does not goes before them in pieces (SYM_RECORD_PART). Pieces first, because the
 * arena is given back in order: a block that waits for its completion would hold up every piece behind it.
 *
 * Threads: next() belongs to one thread. Everything that writes takes `lock`, so that arena blocks are published in
 * the order in which they were taken; it may be held while waiting for space, with the interpreter's lock released. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "../../csrc/sym_atomic.h"
#include "../../csrc/sym_bell.h"
#include "../../csrc/sym_clock.h"
#include "../../csrc/sym_error.h"
#include "../../csrc/sym_ring.h"
#include "../../shm/channel.h"
#include "../../shm/types.h"

int sym_door_add_channel(PyObject *module);

enum {
    AHEAD = 64,                     /* records polled and not yet taken */
    PLANS = 64,                     /* direct-mapped cache of bindings */
    SEGMENTS_AT_FIRST = 32,
    ALIGN = 64,
    BIG_COPY = 65536,               /* larger copies release the interpreter's lock */
    LOG_BYTES = 4096
};
static const int64_t SPIN_NS = 20000;
static const int64_t SLICE_NS = 1000000000;     /* of a wait for space; signals are looked at between slices */

/* What a handler's job is known by while it runs; travels through Python as bytes. The first 16 bytes name it. */
typedef struct {
    uint32_t run, node, run_generation;
    uint16_t attempt, flags;
    uint64_t started_ns, deadline_ns, position;
    uint32_t step, reserved;
} job_t;

typedef struct {
    uint32_t run, run_generation, segment;
    uint64_t offset;
    PyObject *plan;
} plan_t;

typedef struct {
    uint32_t id;                    /* 0: empty */
    Py_buffer buffer;
    PyObject *memory;               /* a memoryview of all of it; slices of it are what Python gets */
} segment_t;

typedef struct {
    PyObject_HEAD
    Py_buffer out_buffer, in_buffer;
    sym_channel_out_t *out;         /* mapped read-only */
    sym_channel_in_t *in;
    sym_consumer_t dispatches;
    sym_producer_t commands;
    uint8_t *arena;
    uint64_t arena_size, arena_tail;
    sym_view_t ahead[AHEAD];
    int ahead_at, ahead_count, cancels_ahead;
    plan_t plans[PLANS];
    segment_t *segments;
    uint32_t segment_slots, segment_count;
    uint32_t in_flight;
    uint64_t progress;
    int pipe_fd;
    PyObject *bind;                 /* bind(memoryview, step) -> plan */
    PyObject *missing;              /* missing(segment id): adds it or raises */
    PyThread_type_lock lock;
} channel_t;

static PyObject *closed_error, *corrupt_error, *long_error;

static PyObject *error_class(PyObject **place, const char *name)
{
    if (*place == NULL) {
        PyObject *errors = PyImport_ImportModule("symphony.model.errors");
        if (errors != NULL) {
            *place = PyObject_GetAttrString(errors, name);
            Py_DECREF(errors);
        }
    }
    return *place ? *place : PyExc_RuntimeError;
}

static void *raise_corrupt(const char *what)
{
    PyErr_Format(error_class(&corrupt_error, "RingCorrupt"), "%s is out of bounds: the channel is not used further", what);
    return NULL;
}

/* ---- waiting ---- */

/* `about`: bytes that are needed, or the position behind which something is awaited. */
typedef int (*question_t)(channel_t *self, uint64_t about);

/* Whether anything has come behind `position`, up to which everything was taken. Not behind what was polled: while this
 * thread waits without the interpreter's lock, another one's cancelled() may poll the record ahead, for which no bell
 * was due. It would lie there, seen by nobody, for the whole of the wait. */
static int has_records(channel_t *self, uint64_t position)
{
    /* SYNC: sleeper. Loaded after the exchange of our own flag. */
    return sym_load_seq_cst_u64(&self->dispatches.producer->tail) != position;
}

static int has_room(channel_t *self, uint64_t bytes)
{
    uint64_t used = self->commands.tail - sym_load_seq_cst_u64(&self->commands.consumer->head);
    return sym_load_acquire_u32(&self->commands.consumer->closed) || used > self->commands.size ||
           bytes <= self->commands.size - used;
}

/* Positions count in units of ALIGN, so that a head given back to the byte frees the block that it ends. */
static uint64_t aligned(uint64_t bytes) { return (bytes + ALIGN - 1) & ~(uint64_t)(ALIGN - 1); }

static uint64_t arena_used(channel_t *self)
{
    return self->arena_tail - aligned(sym_load_seq_cst_u64(&self->out->arena_head));
}

static int has_arena(channel_t *self, uint64_t bytes)
{
    uint64_t used = arena_used(self);
    return used > self->arena_size || bytes <= self->arena_size - used;
}

static int spin(channel_t *self, question_t ask, uint64_t about, int64_t until_ns)
{
    do {
        for (int turn = 0; turn < 16; turn++) {
            if (ask(self, about))
                return 1;
            sym_spin_hint();
        }
    } while (sym_now_ns() < until_ns);
    return 0;
}

/* Spins, then sleeps at most once. 1: the answer is yes; 0: look again, the time may be up. Holds the interpreter's
 * lock at entry and exit only. `sleeping` has one waiter: the channel's flag next(), the ring's whoever holds `lock`. */
static int await(channel_t *self, question_t ask, uint64_t about, uint32_t *sleeping, int64_t timeout_ns)
{
    if (ask(self, about))
        return 1;
    PyThreadState *state = PyEval_SaveThread();
    int64_t spin_ns = timeout_ns < SPIN_NS ? timeout_ns : SPIN_NS;
    int answer = spin(self, ask, about, sym_now_ns() + spin_ns);
    if (!answer && timeout_ns > spin_ns) {
        uint32_t seen = sym_load_acquire_u32(&self->out->bell);
        /* SYNC: sleeper. Our flag by an exchange before the other side's word: a release store would lose wake-ups. */
        sym_exchange_u32(sleeping, 1);
        answer = ask(self, about);
        if (!answer) {
            sym_bell_wait(&self->out->bell, seen, timeout_ns - spin_ns);
            answer = ask(self, about);
        }
        sym_exchange_u32(sleeping, 0);
    }
    PyEval_RestoreThread(state);
    return answer;
}

/* Room in the command ring or the arena; the Conductor looks at the ring's own flag when it gives some back. */
static int await_space(channel_t *self, question_t ask, uint64_t bytes)
{
    while (!await(self, ask, bytes, &self->commands.producer->sleeping, SLICE_NS))
        if (PyErr_CheckSignals() < 0)
            return -1;
    return 0;
}

static void wake_conductor(channel_t *self)
{
    /* SYNC: sleeper. After the exchange of our tail. */
    if (sym_load_seq_cst_u32(&self->out->sleeping))
        sym_bell_pipe_ring(self->pipe_fd);
}

static void lock(channel_t *self)
{
    if (PyThread_acquire_lock(self->lock, NOWAIT_LOCK))
        return;
    PyThreadState *state = PyEval_SaveThread();
    PyThread_acquire_lock(self->lock, WAIT_LOCK);
    PyEval_RestoreThread(state);
}

static void unlock(channel_t *self) { PyThread_release_lock(self->lock); }

/* ---- segments ---- */

static segment_t *segment_slot(segment_t *table, uint32_t slots, uint32_t id)
{
    uint32_t at = (id * 2654435761u) & (slots - 1);
    while (table[at].id != 0 && table[at].id != id)
        at = (at + 1) & (slots - 1);
    return &table[at];
}

static int segments_resize(channel_t *self, uint32_t slots)
{
    segment_t *table = PyMem_Calloc(slots, sizeof *table);
    if (table == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (uint32_t i = 0; i < self->segment_slots; i++)
        if (self->segments[i].id)
            *segment_slot(table, slots, self->segments[i].id) = self->segments[i];
    PyMem_Free(self->segments);
    self->segments = table;
    self->segment_slots = slots;
    return 0;
}

static void segment_drop(segment_t *segment)
{
    Py_CLEAR(segment->memory);
    PyBuffer_Release(&segment->buffer);
    segment->id = 0;
}

static PyObject *channel_forget(PyObject *object, PyObject *argument)
{
    channel_t *self = (channel_t *)object;
    uint32_t id = (uint32_t)PyLong_AsUnsignedLong(argument);
    if (PyErr_Occurred())
        return NULL;
    segment_t *segment = segment_slot(self->segments, self->segment_slots, id);
    if (id == 0 || segment->id != id)
        Py_RETURN_FALSE;
    segment_drop(segment);
    self->segment_count--;
    for (int i = 0; i < PLANS; i++)
        if (self->plans[i].segment == id) {
            self->plans[i].segment = 0;
            Py_CLEAR(self->plans[i].plan);
        }
    if (segments_resize(self, self->segment_slots) < 0)     /* closes the gap in the probe sequence */
        return NULL;
    Py_RETURN_TRUE;
}

static PyObject *channel_add_segment(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    channel_t *self = (channel_t *)object;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "add_segment(id, buffer)");
        return NULL;
    }
    uint32_t id = (uint32_t)PyLong_AsUnsignedLong(arguments[0]);
    if (PyErr_Occurred())
        return NULL;
    if (id == 0) {
        PyErr_SetString(PyExc_ValueError, "segment 0 means nowhere");
        return NULL;
    }
    if (self->segment_count * 2 >= self->segment_slots && segments_resize(self, self->segment_slots * 2) < 0)
        return NULL;
    segment_t fresh = {.id = id};
    if (PyObject_GetBuffer(arguments[1], &fresh.buffer, PyBUF_SIMPLE) < 0)
        return NULL;
    fresh.memory = PyMemoryView_FromObject(arguments[1]);
    if (fresh.memory == NULL) {
        PyBuffer_Release(&fresh.buffer);
        return NULL;
    }
    segment_t *segment = segment_slot(self->segments, self->segment_slots, id);
    if (segment->id)
        segment_drop(segment);
    else
        self->segment_count++;
    *segment = fresh;
    Py_RETURN_NONE;
}

static segment_t *segment_find(channel_t *self, uint32_t id, uint64_t offset, uint64_t size)
{
    segment_t *segment = segment_slot(self->segments, self->segment_slots, id);
    if (segment->id != id || id == 0) {
        PyObject *done = id ? PyObject_CallFunction(self->missing, "I", id) : NULL;
        Py_XDECREF(done);
        if (done == NULL && PyErr_Occurred())
            return NULL;
        segment = segment_slot(self->segments, self->segment_slots, id);
        if (segment->id != id || id == 0)
            return PyErr_Format(PyExc_LookupError, "segment %u was not granted", id), NULL;
    }
    uint64_t length = (uint64_t)segment->buffer.len;
    if (offset > length || size > length - offset)
        return PyErr_Format(PyExc_ValueError, "%llu bytes at %llu lie outside segment %u of %llu bytes",
                            (unsigned long long)size, (unsigned long long)offset, id, (unsigned long long)length), NULL;
    return segment;
}

static PyObject *segment_slice(segment_t *segment, uint64_t offset, uint64_t size)
{
    return PySequence_GetSlice(segment->memory, (Py_ssize_t)offset, (Py_ssize_t)(offset + size));
}

/* ---- inputs ---- */

/* Where a ref's value lies. kind -1: several items of a list, which Python resolves. */
typedef struct {
    int kind;
    segment_t *segment;
    uint64_t offset, size;
} found_t;

static uint64_t word_at(const uint8_t *bytes, uint64_t index)
{
    uint64_t word;
    memcpy(&word, bytes + 8 * index, 8);
    return word;
}

/* One item of a list payload; 0, or -1 with an exception. The form is symphony/model/value.py's. */
static int list_item(found_t *found, uint32_t index)
{
    const uint8_t *payload = (const uint8_t *)found->segment->buffer.buf + found->offset;
    uint64_t count = found->size >= 8 ? word_at(payload, 0) : 0;
    if (index >= count || count > (found->size - 8) / 17) {
        PyErr_Format(PyExc_IndexError, "item %u of a list of %llu", index, (unsigned long long)count);
        return -1;
    }
    uint64_t offset = word_at(payload, 1 + index), size = word_at(payload, 1 + count + index);
    if (offset > found->size || size > found->size - offset) {
        PyErr_Format(PyExc_ValueError, "item %u of a list lies outside it", index);
        return -1;
    }
    found->kind = payload[8 + 16 * count + index];
    found->offset += offset;
    found->size = size;
    return 0;
}

static int find(channel_t *self, const sym_ref_t *ref, found_t *found)
{
    if (ref->segment == 0) {    /* an empty value takes no memory, and keeps its kind */
        int plain = ref->kind == SYM_VALUE_BYTES || ref->kind == SYM_VALUE_TEXT;
        *found = (found_t){.kind = plain ? ref->kind : SYM_VALUE_NONE};
        return 0;
    }
    found->segment = segment_find(self, ref->segment, ref->offset_bytes, ref->size_bytes);
    if (found->segment == NULL)
        return -1;
    found->kind = ref->kind;
    found->offset = ref->offset_bytes;
    found->size = ref->size_bytes;
    if (ref->count == 0 || ref->kind != SYM_VALUE_LIST)
        return 0;
    if (ref->count == 1)
        return list_item(found, ref->first);
    found->kind = -1;
    return 0;
}

static const void *bytes_argument(PyObject *object, Py_ssize_t least, Py_ssize_t *length)
{
    char *data;
    if (PyBytes_AsStringAndSize(object, &data, length) < 0)
        return NULL;
    if (*length < least) {
        PyErr_SetString(PyExc_ValueError, "too short");
        return NULL;
    }
    return data;
}

enum mode { MODE_NATURAL = 0, MODE_BYTES = 1, MODE_TEXT = 2, MODE_VIEW = 3, MODE_PAIR = 4 };

/* value(refs, index, mode): the input at `index`, or NotImplemented for what Python has to resolve or decode.
 * MODE_VIEW gives a memoryview, MODE_PAIR (kind, memoryview). */
static PyObject *channel_value(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    channel_t *self = (channel_t *)object;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "value(refs, index, mode)");
        return NULL;
    }
    Py_ssize_t length;
    long index = PyLong_AsLong(arguments[1]), mode = PyLong_AsLong(arguments[2]);
    const void *refs = bytes_argument(arguments[0], 0, &length);
    if (refs == NULL || PyErr_Occurred())
        return NULL;
    sym_ref_t ref;
    found_t found;
    if (index < 0 || (uint64_t)length < (uint64_t)(index + 1) * sizeof ref)
        Py_RETURN_NOTIMPLEMENTED;
    memcpy(&ref, (const char *)refs + (size_t)index * sizeof ref, sizeof ref);
    if (ref.slot != index)
        Py_RETURN_NOTIMPLEMENTED;
    if (find(self, &ref, &found) < 0)
        return NULL;
    if (found.kind < 0)
        Py_RETURN_NOTIMPLEMENTED;
    const char *data = found.segment ? (const char *)found.segment->buffer.buf + found.offset : "";
    if (mode == MODE_NATURAL && found.kind == SYM_VALUE_NONE)
        Py_RETURN_NONE;
    if (found.kind == SYM_VALUE_BYTES && (mode == MODE_BYTES || mode == MODE_NATURAL))
        return PyBytes_FromStringAndSize(data, (Py_ssize_t)found.size);
    if (found.kind == SYM_VALUE_TEXT && (mode == MODE_TEXT || mode == MODE_NATURAL))
        return PyUnicode_DecodeUTF8(data, (Py_ssize_t)found.size, "strict");
    if (mode != MODE_VIEW && mode != MODE_PAIR)
        Py_RETURN_NOTIMPLEMENTED;
    PyObject *view = found.segment ? segment_slice(found.segment, found.offset, found.size)
                                   : PyMemoryView_FromMemory("", 0, PyBUF_READ);
    return mode == MODE_VIEW || view == NULL ? view : Py_BuildValue("iN", found.kind, view);
}

/* view(segment, offset, size): a read-only memoryview of a granted segment. */
static PyObject *channel_view(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    channel_t *self = (channel_t *)object;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "view(segment, offset, size)");
        return NULL;
    }
    uint32_t id = (uint32_t)PyLong_AsUnsignedLong(arguments[0]);
    uint64_t offset = PyLong_AsUnsignedLongLong(arguments[1]), size = PyLong_AsUnsignedLongLong(arguments[2]);
    if (PyErr_Occurred())
        return NULL;
    segment_t *segment = segment_find(self, id, offset, size);
    return segment ? segment_slice(segment, offset, size) : NULL;
}

/* ---- jobs ---- */

static int same_job(const job_t *job, const sym_dispatch_t *record)
{
    return job->run == record->run && job->run_generation == record->run_generation &&
           (record->node == UINT32_MAX || (job->node == record->node && job->attempt == record->attempt));
}

static int poll_ahead(channel_t *self)
{
    if (self->ahead_at && self->ahead_count < AHEAD) {
        memmove(self->ahead, self->ahead + self->ahead_at, sizeof *self->ahead * (size_t)self->ahead_count);
        self->ahead_at = 0;
    }
    int end = self->ahead_at + self->ahead_count;
    int got = end < AHEAD ? sym_ring_poll_spsc(&self->dispatches, self->ahead + end, AHEAD - end) : 0;
    if (got < 0) {
        raise_corrupt("the dispatch ring");
        return -1;
    }
    for (int i = end; i < end + got; i++)
        self->cancels_ahead += self->ahead[i].kind == SYM_RECORD_CANCEL;
    self->ahead_count += got;
    return got;
}

static int cancelled_ahead(channel_t *self, const job_t *job)
{
    for (int i = self->ahead_at; self->cancels_ahead && i < self->ahead_at + self->ahead_count; i++)
        if (self->ahead[i].kind == SYM_RECORD_CANCEL && self->ahead[i].length >= sizeof(sym_dispatch_t) &&
            same_job(job, (const sym_dispatch_t *)(uintptr_t)self->ahead[i].address))
            return 1;
    return 0;
}

static PyObject *raised(void)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return error;
}

/* New reference to the plan of a binding, cached by run and place; on failure the exception itself, as an object. */
static PyObject *plan_of(channel_t *self, const sym_dispatch_t *dispatch)
{
    const sym_ref_t *binding = &dispatch->binding;
    plan_t *plan = &self->plans[(binding->offset_bytes / 64 + dispatch->run) % PLANS];
    if (plan->plan != NULL && plan->segment == binding->segment && plan->offset == binding->offset_bytes &&
        plan->run == dispatch->run && plan->run_generation == dispatch->run_generation)
        return Py_NewRef(plan->plan);
    segment_t *segment = segment_find(self, binding->segment, binding->offset_bytes, binding->size_bytes);
    PyObject *view = segment ? segment_slice(segment, binding->offset_bytes, binding->size_bytes) : NULL;
    PyObject *made = view ? PyObject_CallFunction(self->bind, "NI", view, dispatch->step) : NULL;
    if (made == NULL)
        return raised();
    Py_XDECREF(plan->plan);
    *plan = (plan_t){.run = dispatch->run, .run_generation = dispatch->run_generation, .segment = binding->segment,
                     .offset = binding->offset_bytes, .plan = Py_NewRef(made)};
    return made;
}

/* The refs of a dispatch as bytes, wherever they lie; NULL with an exception. */
static PyObject *refs_of(channel_t *self, const sym_dispatch_t *dispatch, const char *record, uint32_t length)
{
    const char *inputs = record + sizeof *dispatch;
    uint64_t bytes = (uint64_t)dispatch->input_count * sizeof(sym_ref_t);
    if (dispatch->flags & 1) {
        sym_ref_t block;
        if (length < sizeof *dispatch + sizeof block)
            return raise_corrupt("a dispatch record");
        memcpy(&block, inputs, sizeof block);
        segment_t *segment = segment_find(self, block.segment, block.offset_bytes, bytes);
        if (segment == NULL)
            return NULL;
        inputs = (const char *)segment->buffer.buf + block.offset_bytes;
    } else if (bytes > length - sizeof *dispatch)
        return raise_corrupt("a dispatch record");
    return PyBytes_FromStringAndSize(inputs, (Py_ssize_t)bytes);
}

static PyObject *take_dispatch(channel_t *self, const sym_view_t *view)
{
    const char *record = (const char *)(uintptr_t)view->address;
    sym_dispatch_t dispatch;
    if (view->length < sizeof dispatch)
        return raise_corrupt("a dispatch record");
    memcpy(&dispatch, record, sizeof dispatch);
    job_t job = {.run = dispatch.run, .node = dispatch.node, .run_generation = dispatch.run_generation,
                 .attempt = dispatch.attempt, .deadline_ns = dispatch.deadline_ns, .position = view->position,
                 .step = dispatch.step};
    if (view->kind == SYM_RECORD_CANCEL) {
        sym_ring_release_spsc(&self->dispatches, view->end);
        return Py_BuildValue("y#Oy", &job, (Py_ssize_t)sizeof job, Py_False, "");
    }
    sym_store_release_u64(&self->in->working, view->position);
    self->in_flight++;
    PyObject *plan = cancelled_ahead(self, &job) ? Py_NewRef(Py_None) : plan_of(self, &dispatch);
    PyObject *refs = refs_of(self, &dispatch, record, view->length);
    if (refs == NULL) {
        Py_XDECREF(plan);
        plan = raised();
        refs = PyBytes_FromStringAndSize("", 0);
    }
    /* Freed before the handler runs: a completion then always comes with room for the next dispatch, and the
     * Conductor need not be woken for room alone. What the record said lives on in `job` and `refs`. */
    sym_ring_release_spsc(&self->dispatches, view->end);
    job.started_ns = (uint64_t)sym_now_ns();
    PyObject *name = PyBytes_FromStringAndSize((const char *)&job, sizeof job);
    PyObject *result = name && plan && refs ? PyTuple_Pack(3, name, plan, refs) : NULL;
    Py_XDECREF(name);
    Py_XDECREF(plan);
    Py_XDECREF(refs);
    return result;
}

/* next(timeout_ns) -> None (nothing came) | False (stop) | (job, plan, refs). plan False: the job named was cancelled;
 * None: this job was cancelled before it began; an exception: its plan or inputs could not be had. */
static PyObject *channel_next(PyObject *object, PyObject *argument)
{
    channel_t *self = (channel_t *)object;
    int64_t timeout_ns = PyLong_AsLongLong(argument);
    if (timeout_ns == -1 && PyErr_Occurred())
        return NULL;
    int64_t deadline_ns = 0;
    for (;;) {
        if (self->ahead_count == 0) {
            int got = poll_ahead(self);
            if (got < 0)
                return NULL;
            if (got == 0) {
                int64_t now = sym_now_ns();
                if (deadline_ns == 0) {
                    deadline_ns = timeout_ns > INT64_MAX - now ? INT64_MAX : now + timeout_ns;
                    if (self->in_flight == 0)
                        sym_store_release_u64(&self->in->working, UINT64_MAX);
                }
                if (now >= deadline_ns)
                    Py_RETURN_NONE;
                await(self, has_records, self->dispatches.read, &self->in->sleeping, deadline_ns - now);
                if (PyErr_CheckSignals() < 0)
                    return NULL;
                continue;
            }
        }
        sym_view_t view = self->ahead[self->ahead_at++];
        self->ahead_count--;
        self->cancels_ahead -= view.kind == SYM_RECORD_CANCEL;
        if (view.kind == SYM_RECORD_DISPATCH || view.kind == SYM_RECORD_CANCEL)
            return take_dispatch(self, &view);
        sym_ring_release_spsc(&self->dispatches, view.end);
        if (view.kind == SYM_RECORD_STOP)
            Py_RETURN_FALSE;
    }
}

static const job_t *job_argument(PyObject *object, job_t *job)
{
    Py_ssize_t length;
    const void *data = bytes_argument(object, sizeof *job, &length);
    return data ? memcpy(job, data, sizeof *job) : NULL;
}

/* cancelled(job): whether its run was cancelled or its deadline passed. Looks ahead in the ring, takes nothing. */
static PyObject *channel_cancelled(PyObject *object, PyObject *argument)
{
    channel_t *self = (channel_t *)object;
    job_t job;
    if (job_argument(argument, &job) == NULL || poll_ahead(self) < 0)
        return NULL;
    int late = job.deadline_ns && (uint64_t)sym_now_ns() > job.deadline_ns;
    return PyBool_FromLong(late || cancelled_ahead(self, &job));
}

/* ---- outputs; the callers hold `lock` ---- */

static void *claim(channel_t *self, uint32_t kind, uint64_t length)
{
    if (length > UINT32_MAX || !sym_ring_fits(&self->commands, (uint32_t)length))
        return PyErr_Format(error_class(&long_error, "RecordTooLong"), "a record of %llu bytes never fits the command ring",
                            (unsigned long long)length), NULL;
    for (;;) {
        void *payload = sym_ring_claim_spsc(&self->commands, kind, (uint32_t)length);
        if (payload != NULL)
            return payload;
        if (self->commands.error)
            return raise_corrupt("the command ring");
        if (sym_load_acquire_u32(&self->commands.consumer->closed))
            return PyErr_Format(error_class(&closed_error, "RingClosed"), "the Conductor reads no further"), NULL;
        /* A pad may come before the record; twice its size covers any. */
        uint64_t need = 2 * (length + 16);
        if (await_space(self, has_room, need < self->commands.size ? need : self->commands.size) < 0)
            return NULL;
    }
}

static void commit(channel_t *self)
{
    sym_ring_commit_spsc(&self->commands);
    wake_conductor(self);
}

static sym_completion_t completion_of(const job_t *job, uint32_t outcome, uint32_t outputs)
{
    return (sym_completion_t){.run = job->run, .node = job->node, .run_generation = job->run_generation,
                              .attempt = job->attempt, .outcome = (uint16_t)outcome, .output_count = outputs,
                              .started_ns = job->started_ns, .ended_ns = (uint64_t)sym_now_ns()};
}

static void finished(channel_t *self)
{
    if (self->in_flight)
        self->in_flight--;
    sym_store_relaxed_u64(&self->in->progress, ++self->progress);
    commit(self);
}

static int complete_inline(channel_t *self, const job_t *job, uint32_t outcome, uint32_t kind, uint32_t items,
                           const void *data, uint64_t size)
{
    sym_completion_t completion = completion_of(job, outcome, 1);
    sym_output_t output = {.home = SYM_HOME_INLINE, .kind = (uint16_t)kind, .count = items,
                           .offset_bytes = 0, .size_bytes = size};
    char *record = claim(self, SYM_RECORD_COMPLETION, sizeof completion + sizeof output + size);
    if (record == NULL)
        return -1;
    memcpy(record, &completion, sizeof completion);
    memcpy(record + sizeof completion, &output, sizeof output);
    memcpy(record + sizeof completion + sizeof output, data, size);
    finished(self);
    return 0;
}

/* complete(job, value[, kind, items, outcome]) -> True if the value was sent, False if it has to take the general way
 * (too large, or of a type that is encoded first). Bytes, text and None need no kind. */
static PyObject *channel_complete(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    channel_t *self = (channel_t *)object;
    job_t job;
    if (count < 2 || count > 5) {
        PyErr_SetString(PyExc_TypeError, "complete(job, value[, kind, items, outcome])");
        return NULL;
    }
    if (job_argument(arguments[0], &job) == NULL)
        return NULL;
    PyObject *value = arguments[1];
    const char *data = "";
    Py_ssize_t size = 0;
    uint32_t kind;
    if (PyBytes_CheckExact(value)) {
        char *content;
        PyBytes_AsStringAndSize(value, &content, &size);
        data = content;
        kind = SYM_VALUE_BYTES;
    } else if (PyUnicode_CheckExact(value)) {
        data = PyUnicode_AsUTF8AndSize(value, &size);
        if (data == NULL) {
            PyErr_Clear();
            Py_RETURN_FALSE;
        }
        kind = SYM_VALUE_TEXT;
    } else if (value == Py_None)
        kind = SYM_VALUE_NONE;
    else
        Py_RETURN_FALSE;
    if (size > SYM_LIMIT_INLINE_BYTES)
        Py_RETURN_FALSE;
    kind = count > 2 ? (uint32_t)PyLong_AsUnsignedLong(arguments[2]) : kind;
    uint32_t items = count > 3 ? (uint32_t)PyLong_AsUnsignedLong(arguments[3]) : 0;
    uint32_t outcome = count > 4 ? (uint32_t)PyLong_AsUnsignedLong(arguments[4]) : SYM_OUTCOME_OK;
    if (count > 2 && PyErr_Occurred())
        return NULL;
    lock(self);
    int code = complete_inline(self, &job, outcome, kind, items, data, (uint64_t)size);
    unlock(self);
    if (code < 0)
        return NULL;
    Py_RETURN_TRUE;
}

/* One output as Python hands it over: (kind, items, [buffers], size). */
typedef struct {
    uint32_t kind, items;
    uint64_t size, position;
    uint16_t home;
    PyObject *pieces;               /* borrowed */
} output_t;

static int output_argument(PyObject *item, output_t *output)
{
    if (!PyTuple_Check(item) || PyTuple_Size(item) != 4) {
        PyErr_SetString(PyExc_TypeError, "an output is (kind, items, pieces, size)");
        return -1;
    }
    *output = (output_t){.kind = (uint32_t)PyLong_AsUnsignedLong(PyTuple_GetItem(item, 0)),
                         .items = (uint32_t)PyLong_AsUnsignedLong(PyTuple_GetItem(item, 1)),
                         .size = PyLong_AsUnsignedLongLong(PyTuple_GetItem(item, 3)),
                         .pieces = PyTuple_GetItem(item, 2)};
    if (PyErr_Occurred())
        return -1;
    uint64_t total = 0;
    Py_ssize_t pieces = PySequence_Size(output->pieces);
    for (Py_ssize_t i = 0; i < pieces; i++) {
        Py_buffer buffer;
        PyObject *piece = PySequence_GetItem(output->pieces, i);
        int code = piece ? PyObject_GetBuffer(piece, &buffer, PyBUF_SIMPLE) : -1;
        Py_XDECREF(piece);
        if (code < 0)
            return -1;
        total += (uint64_t)buffer.len;
        PyBuffer_Release(&buffer);
    }
    if (pieces < 0 || total != output->size) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "an output's pieces do not sum to its size");
        return -1;
    }
    return 0;
}

static void copy(char *to, const char *from, uint64_t bytes)
{
    if (bytes < BIG_COPY) {
        memcpy(to, from, bytes);
        return;
    }
    PyThreadState *state = PyEval_SaveThread();
    memcpy(to, from, bytes);
    PyEval_RestoreThread(state);
}

/* Reads an output's pieces front to back. */
typedef struct {
    PyObject *pieces;
    Py_ssize_t index;
    Py_buffer buffer;
    uint64_t at;
    int open;
} reader_t;

static void reader_close(reader_t *reader)
{
    if (reader->open)
        PyBuffer_Release(&reader->buffer);
    reader->open = 0;
}

static int reader_read(reader_t *reader, char *to, uint64_t bytes)
{
    while (bytes) {
        if (!reader->open) {
            PyObject *piece = PySequence_GetItem(reader->pieces, reader->index++);
            int code = piece ? PyObject_GetBuffer(piece, &reader->buffer, PyBUF_SIMPLE) : -1;
            Py_XDECREF(piece);
            if (code < 0)
                return -1;
            reader->open = 1;
            reader->at = 0;
        }
        uint64_t left = (uint64_t)reader->buffer.len - reader->at, now = left < bytes ? left : bytes;
        copy(to, (const char *)reader->buffer.buf + reader->at, now);
        reader->at += now;
        to += now;
        bytes -= now;
        if (reader->at == (uint64_t)reader->buffer.len)
            reader_close(reader);
    }
    return 0;
}

static int read_all(const output_t *output, char *to)
{
    reader_t reader = {.pieces = output->pieces};
    int code = reader_read(&reader, to, output->size);
    reader_close(&reader);
    return code;
}

/* Takes a block that does not wrap; its position, or -1 with an exception. At most half the arena. */
static int64_t arena_take(channel_t *self, uint64_t bytes)
{
    bytes = aligned(bytes);
    uint64_t to_wrap = self->arena_size - (self->arena_tail & (self->arena_size - 1));
    uint64_t skip = bytes > to_wrap ? to_wrap : 0;
    if (await_space(self, has_arena, skip + bytes) < 0)
        return -1;
    if (arena_used(self) > self->arena_size) {
        raise_corrupt("the arena's head");
        return -1;
    }
    uint64_t position = self->arena_tail + skip;
    self->arena_tail = position + bytes;
    return (int64_t)position;
}

static char *arena_at(channel_t *self, uint64_t position)
{
    return (char *)self->arena + (position & (self->arena_size - 1));
}

static int send_part(channel_t *self, const job_t *job, uint16_t number, const output_t *output, reader_t *reader,
                     uint64_t at, uint64_t size)
{
    int64_t position = arena_take(self, size);
    if (position < 0 || reader_read(reader, arena_at(self, (uint64_t)position), size) < 0)
        return -1;
    sym_part_t part = {.run = job->run, .node = job->node, .run_generation = job->run_generation,
                       .attempt = job->attempt, .output = number, .total_bytes = output->size, .at_bytes = at,
                       .offset_bytes = (uint64_t)position, .size_bytes = size};
    void *record = claim(self, SYM_RECORD_PART, sizeof part);
    if (record == NULL)
        return -1;
    memcpy(record, &part, sizeof part);
    commit(self);
    return 0;
}

static int send_in_parts(channel_t *self, const job_t *job, uint16_t number, const output_t *output)
{
    reader_t reader = {.pieces = output->pieces};
    uint64_t most = self->arena_size / 4;
    int code = 0;
    for (uint64_t at = 0; at < output->size && code == 0;) {
        uint64_t size = output->size - at < most ? output->size - at : most;
        code = send_part(self, job, number, output, &reader, at, size);
        at += size;
    }
    reader_close(&reader);
    return code;
}

static void choose_homes(channel_t *self, output_t *outputs, Py_ssize_t count)
{
    uint64_t total = 0, in_arena = 0;
    for (Py_ssize_t i = 0; i < count; i++)
        total += outputs[i].size;
    for (Py_ssize_t i = 0; i < count; i++) {
        int fits = outputs[i].size <= self->arena_size && in_arena + aligned(outputs[i].size) <= self->arena_size / 2;
        outputs[i].home = total <= SYM_LIMIT_INLINE_BYTES || outputs[i].size == 0 ? SYM_HOME_INLINE
                          : fits                                                  ? SYM_HOME_ARENA
                                                                                  : SYM_HOME_PARTS;
        if (outputs[i].home == SYM_HOME_ARENA)
            in_arena += aligned(outputs[i].size);
    }
}

static int place_outputs(channel_t *self, const job_t *job, output_t *outputs, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++)
        if (outputs[i].home == SYM_HOME_PARTS && send_in_parts(self, job, (uint16_t)i, &outputs[i]) < 0)
            return -1;
    for (Py_ssize_t i = 0; i < count; i++)
        if (outputs[i].home == SYM_HOME_ARENA) {
            int64_t position = arena_take(self, outputs[i].size);
            if (position < 0 || read_all(&outputs[i], arena_at(self, (uint64_t)position)) < 0)
                return -1;
            outputs[i].position = (uint64_t)position;
        }
    return 0;
}

static int send_outputs(channel_t *self, const job_t *job, uint32_t outcome, output_t *outputs, Py_ssize_t count)
{
    choose_homes(self, outputs, count);
    /* Inline places count from the end of the rows. */
    uint64_t rows = sizeof(sym_completion_t) + (uint64_t)count * sizeof(sym_output_t), length = 0;
    for (Py_ssize_t i = 0; i < count; i++)
        if (outputs[i].home == SYM_HOME_INLINE) {
            outputs[i].position = length;
            length += outputs[i].size;
        }
    if (place_outputs(self, job, outputs, count) < 0)
        return -1;
    char *record = claim(self, SYM_RECORD_COMPLETION, rows + length);
    if (record == NULL)
        return -1;
    sym_completion_t completion = completion_of(job, outcome, (uint32_t)count);
    memcpy(record, &completion, sizeof completion);
    for (Py_ssize_t i = 0; i < count; i++) {
        sym_output_t row = {.home = outputs[i].home, .kind = (uint16_t)outputs[i].kind, .count = outputs[i].items,
                            .offset_bytes = outputs[i].position, .size_bytes = outputs[i].size};
        memcpy(record + sizeof completion + (size_t)i * sizeof row, &row, sizeof row);
        if (row.home == SYM_HOME_INLINE && read_all(&outputs[i], record + rows + row.offset_bytes) < 0) {
            sym_ring_abort_spsc(&self->commands);
            return -1;
        }
    }
    finished(self);
    return 0;
}

/* finish(job, outcome, outputs): the general answer; outputs are (kind, items, [buffers], size). Waits while the ring
 * or the arena is full. */
static PyObject *channel_finish(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    channel_t *self = (channel_t *)object;
    job_t job;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "finish(job, outcome, outputs)");
        return NULL;
    }
    unsigned long outcome = PyLong_AsUnsignedLong(arguments[1]);
    if (PyErr_Occurred() || job_argument(arguments[0], &job) == NULL)
        return NULL;
    Py_ssize_t number = PySequence_Size(arguments[2]);
    if (number < 0)
        return NULL;
    if (number > SYM_LIMIT_OUTPUTS)
        return PyErr_Format(PyExc_ValueError, "%zd outputs; at most %d are possible", number, SYM_LIMIT_OUTPUTS);
    output_t outputs[SYM_LIMIT_OUTPUTS];
    PyObject *items = PySequence_Tuple(arguments[2]);
    if (items == NULL)
        return NULL;
    int code = 0;
    for (Py_ssize_t i = 0; i < number && code == 0; i++)
        code = output_argument(PyTuple_GetItem(items, i), &outputs[i]);
    if (code == 0) {
        lock(self);
        code = send_outputs(self, &job, (uint32_t)outcome, outputs, number);
        unlock(self);
    }
    Py_DECREF(items);
    if (code < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ready(): the handlers are imported. */
static PyObject *channel_ready(PyObject *object, PyObject *unused)
{
    channel_t *self = (channel_t *)object;
    (void)unused;
    lock(self);
    void *record = claim(self, SYM_RECORD_READY, 0);
    if (record != NULL)
        commit(self);
    unlock(self);
    if (record == NULL)
        return NULL;
    Py_RETURN_NONE;
}

/* log(job or None, level, text): a line for the engine's log; cut at LOG_BYTES. */
static PyObject *channel_log(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    channel_t *self = (channel_t *)object;
    job_t job = {.node = UINT32_MAX, .run = UINT32_MAX};
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "log(job, level, text)");
        return NULL;
    }
    if (arguments[0] != Py_None && job_argument(arguments[0], &job) == NULL)
        return NULL;
    unsigned long level = PyLong_AsUnsignedLong(arguments[1]);
    Py_ssize_t size;
    const char *text = PyErr_Occurred() ? NULL : PyUnicode_AsUTF8AndSize(arguments[2], &size);
    if (text == NULL)
        return NULL;
    sym_log_t head = {.run = job.run, .node = job.node, .level = (uint32_t)level,
                      .size_bytes = (uint32_t)(size < LOG_BYTES ? size : LOG_BYTES)};
    lock(self);
    char *record = claim(self, SYM_RECORD_LOG, sizeof head + head.size_bytes);
    if (record != NULL) {
        memcpy(record, &head, sizeof head);
        memcpy(record + sizeof head, text, head.size_bytes);
        commit(self);
    }
    unlock(self);
    if (record == NULL)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- the type ---- */

static void *region(Py_buffer *buffer, unsigned long long offset, unsigned long long size)
{
    unsigned long long length = (unsigned long long)buffer->len;
    if (offset > length || size > length - offset || offset % 8) {
        PyErr_SetString(PyExc_ValueError, "a region lies outside its segment");
        return NULL;
    }
    return (char *)buffer->buf + offset;
}

static int attach(channel_t *self, const unsigned long long *g)
{
    self->out = region(&self->out_buffer, g[0], sizeof(sym_channel_out_t));
    void *dispatch = self->out ? region(&self->out_buffer, g[1], sizeof(sym_ring_producer_t)) : NULL;
    void *dispatch_data = dispatch ? region(&self->out_buffer, g[2], g[3]) : NULL;
    void *command_head = dispatch_data ? region(&self->out_buffer, g[4], sizeof(sym_ring_consumer_t)) : NULL;
    self->in = command_head ? region(&self->in_buffer, g[5], sizeof(sym_channel_in_t)) : NULL;
    void *command = self->in ? region(&self->in_buffer, g[6], sizeof(sym_ring_producer_t)) : NULL;
    void *command_data = command ? region(&self->in_buffer, g[7], g[8]) : NULL;
    void *dispatch_head = command_data ? region(&self->in_buffer, g[9], sizeof(sym_ring_consumer_t)) : NULL;
    self->arena = dispatch_head ? region(&self->in_buffer, g[10], g[11]) : NULL;
    self->arena_size = g[11];
    if (self->arena == NULL)
        return -1;
    if (self->arena_size < 4096 || (self->arena_size & (self->arena_size - 1)) ||
        sym_ring_consumer_init_spsc(&self->dispatches, dispatch_data, g[3], dispatch, dispatch_head) < 0 ||
        sym_ring_producer_init_spsc(&self->commands, command_data, g[8], command, command_head) < 0) {
        PyErr_SetString(PyExc_ValueError, "ring and arena sizes are powers of two, rings of 256 at least, arenas of 4096");
        return -1;
    }
    sym_store_relaxed_u64(&self->in->progress, 0);
    sym_store_release_u64(&self->in->working, UINT64_MAX);
    return 0;
}

static PyObject *channel_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    PyObject *out, *in, *bind, *missing;
    int pipe_fd;
    unsigned long long g[12];
    if (keywords != NULL && PyDict_Size(keywords)) {
        PyErr_SetString(PyExc_TypeError, "PlayerChannel takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "OO(KKKKKKKKKKKK)iOO", &out, &in, &g[0], &g[1], &g[2], &g[3], &g[4], &g[5], &g[6],
                          &g[7], &g[8], &g[9], &g[10], &g[11], &pipe_fd, &bind, &missing))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    channel_t *self = (channel_t *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    self->pipe_fd = pipe_fd;
    self->bind = Py_NewRef(bind);
    self->missing = Py_NewRef(missing);
    self->lock = PyThread_allocate_lock();
    if (self->lock == NULL || segments_resize(self, SEGMENTS_AT_FIRST) < 0 ||
        PyObject_GetBuffer(out, &self->out_buffer, PyBUF_SIMPLE) < 0 ||
        PyObject_GetBuffer(in, &self->in_buffer, PyBUF_WRITABLE) < 0 || attach(self, g) < 0) {
        if (!PyErr_Occurred())
            PyErr_NoMemory();
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int channel_traverse(PyObject *object, visitproc visit, void *arg)
{
    channel_t *self = (channel_t *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->bind);
    Py_VISIT(self->missing);
    for (int i = 0; i < PLANS; i++)
        Py_VISIT(self->plans[i].plan);
    return 0;
}

static int channel_clear(PyObject *object)
{
    channel_t *self = (channel_t *)object;
    Py_CLEAR(self->bind);
    Py_CLEAR(self->missing);
    for (int i = 0; i < PLANS; i++)
        Py_CLEAR(self->plans[i].plan);
    return 0;
}

static void channel_dealloc(PyObject *object)
{
    channel_t *self = (channel_t *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    channel_clear(object);
    for (uint32_t i = 0; i < self->segment_slots; i++)
        if (self->segments[i].id)
            segment_drop(&self->segments[i]);
    PyMem_Free(self->segments);
    if (self->in_buffer.obj)
        PyBuffer_Release(&self->in_buffer);
    if (self->out_buffer.obj)
        PyBuffer_Release(&self->out_buffer);
    if (self->lock)
        PyThread_free_lock(self->lock);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef channel_methods[] = {
    {"next", channel_next, METH_O, "next(timeout_ns) -> None | False (stop) | (job, plan, refs)"},
    {"value", FAST(channel_value), METH_FASTCALL, "value(refs, index, mode) -> object or NotImplemented"},
    {"view", FAST(channel_view), METH_FASTCALL, "view(segment, offset, size) -> memoryview"},
    {"complete", FAST(channel_complete), METH_FASTCALL, "complete(job, value[, kind, items, outcome]) -> bool"},
    {"finish", FAST(channel_finish), METH_FASTCALL, "finish(job, outcome, outputs)"},
    {"cancelled", channel_cancelled, METH_O, "cancelled(job) -> bool"},
    {"ready", channel_ready, METH_NOARGS, "ready()"},
    {"log", FAST(channel_log), METH_FASTCALL, "log(job or None, level, text)"},
    {"add_segment", FAST(channel_add_segment), METH_FASTCALL, "add_segment(id, buffer)"},
    {"forget", channel_forget, METH_O, "forget(id) -> bool"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot channel_slots[] = {
    {Py_tp_new, channel_new},
    {Py_tp_dealloc, channel_dealloc},
    {Py_tp_traverse, channel_traverse},
    {Py_tp_clear, channel_clear},
    {Py_tp_methods, channel_methods},
    {Py_tp_doc, "PlayerChannel(out, in, offsets, pipe_fd, bind, missing): a player's end of its channel."},
    {0, NULL},
};

static PyType_Spec channel_spec = {
    .name = "symphony.native._door.PlayerChannel",
    .basicsize = sizeof(channel_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = channel_slots,
};

/* die_with(parent_pid) -> bool: from now on the kernel kills this process when the thread that started it ends.
 * False: that parent is gone already. */
static PyObject *die_with(PyObject *module, PyObject *argument)
{
    (void)module;
    long parent = PyLong_AsLong(argument);
    if (parent == -1 && PyErr_Occurred())
        return NULL;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyBool_FromLong(getppid() == parent);
}

static PyMethodDef functions[] = {
    {"die_with", die_with, METH_O, "die_with(parent_pid) -> bool"},
    {NULL, NULL, 0, NULL},
};

int sym_door_add_channel(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&channel_spec);
    if (type == NULL || PyModule_AddObjectRef(module, "PlayerChannel", type) < 0) {
        Py_XDECREF(type);
        return -1;
    }
    Py_DECREF(type);
    return PyModule_AddFunctions(module, functions);
}
