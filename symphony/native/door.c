/* The fast door: what Python calls often enough that cffi's 120 ns would show. Limited API of CPython 3.11.
 *
 *    bind(address, base, ...)     a compiled kernel as a Python callable
 *    Sender, Receiver             the two sides of a ring (csrc/sym_ring.h)
 *    thread_slot()                the calling thread's slot in the engine's table of owners
 *
 * The only file of C with static or thread-local state: csrc is linked into more than one module and must not care.
 *
 * Threads: every operation holds the interpreter's lock from claim to commit and from poll to release, so a side is
 * safe to share between threads, though only one may wait in it at a time. The first 20 us of a wait spin with the
 * lock held (taking it back beside a busy thread would cost more than the message); then the thread parks without it. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "csrc/sym_atomic.h"
#include "csrc/sym_bell.h"
#include "csrc/sym_clock.h"
#include "csrc/sym_error.h"
#include "csrc/sym_ring.h"
#include "shm/types.h"

int sym_door_add_channel(PyObject *module);     /* door_channel.c: the player's end of a channel */

enum {
    BOUND_MOST = 8,             /* arguments of a kernel, base and slot included */
    CALL_MOST = 4,              /* of them, given at the call */
    VIEWS_AT_ONCE = 64
};

static const int64_t SPIN_NS = 20000;
static const int64_t SLICE_NS = 100000000;  /* a park is cut into these, so that Ctrl-C and a deadline are seen */
static const int64_t FOREVER = -1;

typedef struct {
    PyObject *full, *closed, *corrupt, *too_long, *timeout, *ring_error;
    PyObject *bound_type, *view_type;
} door_t;

static _Thread_local int64_t own_slot = -1;

/* ---- bind ---- */

typedef struct {
    PyObject_HEAD
    void *kernel;
    int count;                  /* of fixed arguments, base included */
    int takes_slot;             /* the thread's slot goes right after the base */
    int64_t fixed[BOUND_MOST];
} bound_t;

static int64_t call_kernel(void *kernel, int count, const int64_t *v)
{
    typedef int64_t i;
    switch (count) {
    case 1: return ((i(*)(i))kernel)(v[0]);
    case 2: return ((i(*)(i, i))kernel)(v[0], v[1]);
    case 3: return ((i(*)(i, i, i))kernel)(v[0], v[1], v[2]);
    case 4: return ((i(*)(i, i, i, i))kernel)(v[0], v[1], v[2], v[3]);
    case 5: return ((i(*)(i, i, i, i, i))kernel)(v[0], v[1], v[2], v[3], v[4]);
    case 6: return ((i(*)(i, i, i, i, i, i))kernel)(v[0], v[1], v[2], v[3], v[4], v[5]);
    case 7: return ((i(*)(i, i, i, i, i, i, i))kernel)(v[0], v[1], v[2], v[3], v[4], v[5], v[6]);
    default: return ((i(*)(i, i, i, i, i, i, i, i))kernel)(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]);
    }
}

static PyObject *bound_call(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    const bound_t *bound = (const bound_t *)self;
    int64_t values[BOUND_MOST];
    if (n > CALL_MOST || bound->count + n > BOUND_MOST)
        return PyErr_Format(PyExc_TypeError, "a bound kernel takes at most %d arguments at the call", CALL_MOST);
    memcpy(values, bound->fixed, sizeof values);
    if (bound->takes_slot)
        values[1] = own_slot;
    for (Py_ssize_t i = 0; i < n; i++) {
        int64_t value = PyLong_AsLongLong(args[i]);
        if (value == -1 && PyErr_Occurred())
            return NULL;
        values[bound->count + i] = value;
    }
    return PyLong_FromLongLong(call_kernel(bound->kernel, bound->count + (int)n, values));
}

static PyMethodDef bound_method = {
    "kernel", (PyCFunction)(void (*)(void))bound_call, METH_FASTCALL,
    "kernel(*ints) -> int\n\nCalls the compiled kernel that it was bound to, holding the interpreter's lock."};

PyDoc_STRVAR(bind_doc,
             "bind(address, base, *ints, slot=False) -> callable\n\n"
             "A callable that passes base, then the calling thread's slot if `slot`, then `ints`, then up to 4 ints of\n"
             "the call to the function at `address`: int64_t kernel(int64_t base, ...), 8 arguments at most in all.\n"
             "It returns the function's result; about 40 ns. The caller answers for the address, for the number of\n"
             "arguments, and for whatever the base points at living as long as the callable is used.");

static PyObject *door_bind(PyObject *module, PyObject *args, PyObject *kwargs)
{
    door_t *door = PyModule_GetState(module);
    int slot = 0;
    Py_ssize_t n = PyTuple_Size(args);
    if (kwargs && PyDict_Size(kwargs)) {
        PyObject *flag = PyDict_GetItemString(kwargs, "slot");
        if (flag == NULL || PyDict_Size(kwargs) != 1)
            return PyErr_Format(PyExc_TypeError, "bind() knows the keyword `slot` only");
        if ((slot = PyObject_IsTrue(flag)) < 0)
            return NULL;
    }
    if (n < 2 || n - 1 + slot > BOUND_MOST)
        return PyErr_Format(PyExc_TypeError, "bind() takes an address, a base and at most %d ints", BOUND_MOST - 1 - slot);
    void *kernel = PyLong_AsVoidPtr(PyTuple_GetItem(args, 0));
    if (kernel == NULL)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "bind() was given the address 0");
    bound_t *bound = PyObject_New(bound_t, (PyTypeObject *)door->bound_type);
    if (bound == NULL)
        return NULL;
    bound->kernel = kernel;
    bound->takes_slot = slot;
    bound->count = 0;
    for (Py_ssize_t i = 1; i < n; i++) {
        int64_t value = PyLong_AsLongLong(PyTuple_GetItem(args, i));
        if (value == -1 && PyErr_Occurred()) {
            Py_DECREF(bound);
            return NULL;
        }
        bound->fixed[bound->count++] = value;
        if (i == 1 && slot)
            bound->fixed[bound->count++] = -1;
    }
    PyObject *callable = PyCFunction_NewEx(&bound_method, (PyObject *)bound, NULL);
    Py_DECREF(bound);
    return callable;
}

static void plain_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyType_Slot bound_slots[] = {{Py_tp_dealloc, plain_dealloc}, {0, NULL}};

static PyType_Spec bound_spec = {
    .name = "symphony.native._door.Bound", .basicsize = sizeof(bound_t), .slots = bound_slots,
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION};

PyDoc_STRVAR(slot_doc, "thread_slot() -> int\n\nThe calling thread's slot as given to set_thread_slot, or -1.");

static PyObject *door_thread_slot(PyObject *module, PyObject *ignored)
{
    (void)module, (void)ignored;
    return PyLong_FromLongLong(own_slot);
}

PyDoc_STRVAR(set_slot_doc, "set_thread_slot(slot)\n\nRemembers the calling thread's slot; -1 forgets it.");

static PyObject *door_set_thread_slot(PyObject *module, PyObject *value)
{
    (void)module;
    int64_t slot = PyLong_AsLongLong(value);
    if (slot == -1 && PyErr_Occurred())
        return NULL;
    own_slot = slot;
    Py_RETURN_NONE;
}

/* ---- a side of a ring ---- */

typedef struct {
    PyObject_HEAD
    door_t *door;               /* the module's, kept alive by the type */
    sym_producer_t producer;    /* one of the two is in use */
    sym_consumer_t consumer;
    uint32_t *own_sleeping;     /* our flag, which the other side looks at */
    const uint32_t *own_bell;   /* what the other side rings */
    const uint32_t *peer_sleeping;
    uint32_t *peer_bell;        /* what we ring: a word, or NULL and peer_fd */
    int peer_fd;
    int is_open;
    int waiting;                /* a thread is parked in here without the interpreter's lock */
    int pid;                    /* of the process that opened it: a fork's copy does not close it for everybody */
    Py_ssize_t exports;         /* memoryviews that look into the ring */
    uint16_t kind;              /* of the record received last */
    int buffer_count;
    Py_buffer buffers[7];
} side_t;

/* Takes a buffer of at least `bytes` and keeps it until the side is closed. NULL with an exception set. */
static void *hold(side_t *side, PyObject *object, Py_ssize_t bytes, int writable, const char *what)
{
    Py_buffer *buffer = &side->buffers[side->buffer_count];
    if (PyObject_GetBuffer(object, buffer, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0)
        return NULL;
    side->buffer_count++;
    if (buffer->len >= bytes)
        return buffer->buf;
    PyErr_Format(PyExc_ValueError, "%s: %zd bytes where %zd are needed", what, buffer->len, bytes);
    return NULL;
}

static void let_go(side_t *side)
{
    side->is_open = 0;
    while (side->buffer_count > 0)
        PyBuffer_Release(&side->buffers[--side->buffer_count]);
}

static void ring_peer(side_t *side)
{
    if (side->peer_bell)
        sym_bell_ring(side->peer_bell);
    else
        sym_bell_pipe_ring(side->peer_fd);
}

static inline void ring_if_asleep(side_t *side)
{
    /* SYNC: sleeper. After the exchange of tail or head that came just before. */
    if (sym_load_seq_cst_u32(side->peer_sleeping))
        ring_peer(side);
}

static int set_error(side_t *side, int code, const char *what)
{
    PyObject *error = code == SYM_E_CLOSED ? side->door->closed : side->door->corrupt;
    const char *why = code == SYM_E_CLOSED ? "the other side closed it"
                                           : "a position or a record lies out of bounds; the other side is not to be trusted";
    PyErr_Format(error, "%s: %s", what, why);
    return -1;
}

static int check_open(side_t *side, const char *what)
{
    if (side->is_open)
        return 1;
    PyErr_Format(side->door->closed, "%s: this side of the ring was closed", what);
    return 0;
}

/* Flags and bells: defaults are those of a bare ring; a channel has its own. -1 with an exception set. */
static int hold_bells(side_t *side, PyObject *rings, PyObject *bell, PyObject *peer_sleeping, PyObject *own_sleeping)
{
    side->peer_fd = -1;
    if (PyLong_Check(rings)) {
        side->peer_fd = (int)PyLong_AsLong(rings);
        if (side->peer_fd < 0)
            return PyErr_Occurred() ? -1 : (PyErr_SetString(PyExc_ValueError, "a bell's descriptor is not negative"), -1);
    } else if ((side->peer_bell = hold(side, rings, 4, 1, "the other side's bell")) == NULL) {
        return -1;
    }
    if ((side->own_bell = hold(side, bell, 4, 0, "the own bell")) == NULL)
        return -1;
    if (peer_sleeping != Py_None && (side->peer_sleeping = hold(side, peer_sleeping, 4, 0, "the other side's flag")) == NULL)
        return -1;
    if (own_sleeping != Py_None && (side->own_sleeping = hold(side, own_sleeping, 4, 1, "the own flag")) == NULL)
        return -1;
    return 0;
}

static int parse_side(PyObject *args, PyObject *kwargs, PyObject **o)
{
    static char *names[] = {"data", "producer", "consumer", "rings", "bell", "peer_sleeping", "own_sleeping", NULL};
    o[5] = o[6] = Py_None;
    return PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOO|$OO", names, &o[0], &o[1], &o[2], &o[3], &o[4], &o[5], &o[6]);
}

static side_t *new_side(PyTypeObject *type)
{
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    side_t *side = (side_t *)alloc(type, 0);
    if (side) {
        side->door = PyType_GetModuleState(type);
        side->pid = getpid();
    }
    return side;
}

static int finish_side(side_t *side, int code, const char *what)
{
    if (code == 0) {
        side->is_open = 1;
        return 0;
    }
    if (code == SYM_E_CORRUPT)
        return set_error(side, code, what);
    PyErr_Format(PyExc_ValueError, "%s: %s", what,
                 code == SYM_E_SIZE ? "its data must be a power of two of at least 256 bytes" : "its memory is not aligned to 8 bytes");
    return -1;
}

static PyObject *sender_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *o[7];
    if (!parse_side(args, kwargs, o))
        return NULL;
    side_t *side = new_side(type);
    if (side == NULL)
        return NULL;
    void *data = hold(side, o[0], 1, 1, "the ring's data");
    void *producer = data ? hold(side, o[1], sizeof(sym_ring_producer_t), 1, "the producer's words") : NULL;
    void *consumer = producer ? hold(side, o[2], sizeof(sym_ring_consumer_t), 0, "the consumer's words") : NULL;
    if (consumer == NULL)
        goto failed;
    side->own_sleeping = &((sym_ring_producer_t *)producer)->sleeping;
    side->peer_sleeping = &((sym_ring_consumer_t *)consumer)->sleeping;
    if (hold_bells(side, o[3], o[4], o[5], o[6]) < 0)
        goto failed;
    uint64_t size = (uint64_t)side->buffers[0].len;
    if (finish_side(side, sym_ring_producer_attach_spsc(&side->producer, data, size, producer, consumer), "sender") == 0)
        return (PyObject *)side;
failed:
    Py_DECREF(side);
    return NULL;
}

static PyObject *receiver_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *o[7];
    if (!parse_side(args, kwargs, o))
        return NULL;
    side_t *side = new_side(type);
    if (side == NULL)
        return NULL;
    void *data = hold(side, o[0], 1, 0, "the ring's data");
    void *producer = data ? hold(side, o[1], sizeof(sym_ring_producer_t), 0, "the producer's words") : NULL;
    void *consumer = producer ? hold(side, o[2], sizeof(sym_ring_consumer_t), 1, "the consumer's words") : NULL;
    if (consumer == NULL)
        goto failed;
    side->own_sleeping = &((sym_ring_consumer_t *)consumer)->sleeping;
    side->peer_sleeping = &((sym_ring_producer_t *)producer)->sleeping;
    if (hold_bells(side, o[3], o[4], o[5], o[6]) < 0)
        goto failed;
    uint64_t size = (uint64_t)side->buffers[0].len;
    if (finish_side(side, sym_ring_consumer_attach_spsc(&side->consumer, data, size, producer, consumer), "receiver") == 0)
        return (PyObject *)side;
failed:
    Py_DECREF(side);
    return NULL;
}

static void say_closed(side_t *side, int producer)
{
    if (producer)
        sym_ring_producer_close_spsc(&side->producer);
    else
        sym_ring_consumer_close_spsc(&side->consumer);
    ring_peer(side);
}

static PyObject *close_side(side_t *side, int producer)
{
    if (!side->is_open)
        Py_RETURN_NONE;
    if (side->waiting)
        return PyErr_Format(side->door->ring_error, "close: another thread waits in this side of the ring");
    if (side->exports)
        return PyErr_Format(PyExc_BufferError, "close: %zd views still look into the ring; release them first", side->exports);
    say_closed(side, producer);
    let_go(side);
    Py_RETURN_NONE;
}

static void side_dealloc(side_t *side, int producer)
{
    PyTypeObject *type = Py_TYPE((PyObject *)side);
    if (side->is_open && side->pid == getpid())
        say_closed(side, producer);
    let_go(side);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(side);
    Py_DECREF(type);
}

static void sender_dealloc(PyObject *self) { side_dealloc((side_t *)self, 1); }
static void receiver_dealloc(PyObject *self) { side_dealloc((side_t *)self, 0); }
static PyObject *sender_close(PyObject *self, PyObject *none) { (void)none; return close_side((side_t *)self, 1); }
static PyObject *receiver_close(PyObject *self, PyObject *none) { (void)none; return close_side((side_t *)self, 0); }

static PyObject *side_closed(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(!((side_t *)self)->is_open);
}

/* ---- arguments and waiting ---- */

/* Places args and keywords into `out` (NULL where not given). */
static int take(PyObject *const *args, Py_ssize_t n, PyObject *keywords, const char *const *names, int count, PyObject **out)
{
    if (n > count) {
        PyErr_Format(PyExc_TypeError, "at most %d arguments, %zd were given", count, n);
        return 0;
    }
    for (int i = 0; i < count; i++)
        out[i] = i < n ? args[i] : NULL;
    Py_ssize_t given = keywords ? PyTuple_Size(keywords) : 0;
    for (Py_ssize_t k = 0; k < given; k++) {
        PyObject *keyword = PyTuple_GetItem(keywords, k);
        int i = 0;
        while (i < count && PyUnicode_CompareWithASCIIString(keyword, names[i]) != 0)
            i++;
        if (i == count || out[i]) {
            PyErr_Format(PyExc_TypeError, "argument %R is not known or given twice", keyword);
            return 0;
        }
        out[i] = args[n + k];
    }
    return 1;
}

/* Seconds or None to nanoseconds; -2 with an exception set. */
static int64_t timeout_of(PyObject *object)
{
    if (object == NULL || object == Py_None)
        return FOREVER;
    double seconds = PyFloat_AsDouble(object);
    if (seconds == -1.0 && PyErr_Occurred())
        return -2;
    if (!(seconds >= 0)) {
        PyErr_SetString(PyExc_ValueError, "a timeout is None or a number of seconds that is not negative");
        return -2;
    }
    return seconds > 9e9 ? FOREVER : (int64_t)(seconds * 1e9);
}

static int wait_once(side_t *side, int64_t length, int64_t spin_ns, int64_t timeout_ns)
{
    if (length < 0)
        return sym_ring_wait_spsc(&side->consumer, side->own_sleeping, side->own_bell, spin_ns, timeout_ns);
    return sym_ring_wait_space_spsc(&side->producer, (uint32_t)length, side->own_sleeping, side->own_bell, spin_ns, timeout_ns);
}

static int check_alone(side_t *side, const char *what)
{
    if (!side->waiting)
        return 1;
    PyErr_Format(side->door->ring_error, "%s: another thread waits in this side of the ring already", what);
    return 0;
}

static int park(side_t *side, int64_t length, int64_t timeout_ns)
{
    int answer;
    side->waiting = 1;
    Py_BEGIN_ALLOW_THREADS
    answer = wait_once(side, length, 0, timeout_ns);
    Py_END_ALLOW_THREADS
    side->waiting = 0;
    return answer;
}

/* Waits for records (length < 0) or for room. 1 there is, 0 timed out, -1 with an exception set.
 *
 * A signal's handler runs between two parks, and may do anything, as may another thread while it runs: receive what
 * there was, wait here itself, or close this side, whose memory is gone then. All of it is looked at again. */
static int wait_side(side_t *side, int64_t length, int64_t timeout_ns, const char *what)
{
    if (!check_alone(side, what))
        return -1;
    int64_t start = sym_now_ns();
    int64_t spin = timeout_ns == FOREVER || timeout_ns > SPIN_NS ? SPIN_NS : timeout_ns;
    int answer = wait_once(side, length, spin, spin);
    while (answer == 0) {
        int64_t left = timeout_ns == FOREVER ? SLICE_NS : timeout_ns - (sym_now_ns() - start);
        if (left <= 0)
            return 0;
        answer = park(side, length, left < SLICE_NS ? left : SLICE_NS);
        if (PyErr_CheckSignals() < 0 || !check_open(side, what) || (answer == 0 && !check_alone(side, what)))
            return -1;
    }
    return answer > 0 ? 1 : set_error(side, answer, what);
}

/* ---- Sender ---- */

static int refuse_full(side_t *side, Py_ssize_t sent)
{
    PyObject *message = PyUnicode_FromFormat("the ring was full until the time-out; %zd records were sent", sent);
    PyObject *args = message ? PyTuple_Pack(1, message) : NULL;
    PyObject *facts = Py_BuildValue("{s:n}", "sent", sent);
    PyObject *error = args && facts ? PyObject_Call(side->door->full, args, facts) : NULL;
    if (error)
        PyErr_SetObject(side->door->full, error);
    Py_XDECREF(message);
    Py_XDECREF(args);
    Py_XDECREF(facts);
    Py_XDECREF(error);
    return -1;
}

static void show_staged(side_t *side)
{
    sym_ring_publish_spsc(&side->producer);
    ring_if_asleep(side);
}

/* Room for a record, waiting if need be; what was staged before is shown first, or the consumer could never free it. */
static void *claim(side_t *side, uint32_t kind, Py_ssize_t length, int64_t timeout_ns, Py_ssize_t sent)
{
    /* SYNC: closed. Looked at by every send: without it records would go to nobody until the ring is full. */
    if (sym_load_acquire_u32(&side->producer.consumer->closed)) {
        set_error(side, SYM_E_CLOSED, "send");
        return NULL;
    }
    void *payload = length > UINT32_MAX ? NULL : sym_ring_claim_spsc(&side->producer, kind, (uint32_t)length);
    if (payload)
        return payload;
    if (length > UINT32_MAX || !sym_ring_fits(&side->producer, (uint32_t)length)) {
        PyErr_Format(side->door->too_long, "a record of %zd bytes does not fit: a ring of %llu bytes takes records of at most %llu",
                     length, (unsigned long long)side->producer.size, (unsigned long long)(side->producer.size / 2 - sizeof(sym_record_t)));
        return NULL;
    }
    show_staged(side);
    while (payload == NULL) {
        if (side->producer.error) {
            set_error(side, SYM_E_CORRUPT, "send");
            return NULL;
        }
        int answer = timeout_ns == 0 ? 0 : wait_side(side, length, timeout_ns, "send");
        if (answer <= 0) {
            if (answer == 0)
                refuse_full(side, sent);
            return NULL;
        }
        payload = sym_ring_claim_spsc(&side->producer, kind, (uint32_t)length);
    }
    return payload;
}

/* Taking the buffer and giving it back may run Python, also our close(). */
static int stage(side_t *side, PyObject *object, uint32_t kind, int64_t timeout_ns, Py_ssize_t sent, const char *what)
{
    Py_buffer buffer;
    if (PyObject_GetBuffer(object, &buffer, PyBUF_SIMPLE) < 0)
        return -1;
    void *payload = check_open(side, what) ? claim(side, kind, buffer.len, timeout_ns, sent) : NULL;
    if (payload) {
        memcpy(payload, buffer.buf, (size_t)buffer.len);
        sym_ring_stage_spsc(&side->producer);
    }
    PyBuffer_Release(&buffer);
    return payload && check_open(side, what) ? 0 : -1;
}

static int parse_send(PyObject *const *args, Py_ssize_t n, PyObject *keywords, const char *const *names, PyObject **object,
                      uint32_t *kind, int64_t *timeout_ns)
{
    PyObject *out[3];
    if (!take(args, n, keywords, names, 3, out))
        return 0;
    if (out[0] == NULL) {
        PyErr_Format(PyExc_TypeError, "argument '%s' is missing", names[0]);
        return 0;
    }
    long value = out[1] ? PyLong_AsLong(out[1]) : SYM_RECORD_USER;
    if (value == -1 && PyErr_Occurred())
        return 0;
    if (value < SYM_RECORD_USER || value > UINT16_MAX) {
        PyErr_Format(PyExc_ValueError, "a record's kind is %d to %d, not %ld", SYM_RECORD_USER, UINT16_MAX, value);
        return 0;
    }
    *object = out[0];
    *kind = (uint32_t)value;
    return (*timeout_ns = timeout_of(out[2])) >= FOREVER;
}

PyDoc_STRVAR(send_doc,
             "send(buffer, kind=16, timeout=None)\n\n"
             "Copies the buffer into the ring as one record and shows it to the receiver; about 100 ns while there is\n"
             "room. Waits at most `timeout` seconds for room (None: for ever, 0: not at all).\n"
             "Raises RingFull, RingClosed (the receiver closed), RecordTooLong, RingCorrupt.");

static PyObject *sender_send(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *keywords)
{
    static const char *const names[] = {"buffer", "kind", "timeout"};
    side_t *side = (side_t *)self;
    PyObject *object;
    uint32_t kind;
    int64_t timeout_ns;
    if (!parse_send(args, n, keywords, names, &object, &kind, &timeout_ns))
        return NULL;
    if (stage(side, object, kind, timeout_ns, 0, "send") < 0)
        return NULL;
    show_staged(side);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(send_many_doc,
             "send_many(buffers, kind=16, timeout=None) -> int\n\n"
             "Sends every buffer of an iterable as a record of its own, showing them to the receiver together, and as far\n"
             "as needed earlier when the ring fills up. `timeout` is for each wait for room. How many were sent; an\n"
             "exception leaves those before it sent (RingFull.facts['sent'] counts them).");

static PyObject *sender_send_many(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *keywords)
{
    static const char *const names[] = {"buffers", "kind", "timeout"};
    side_t *side = (side_t *)self;
    PyObject *object, *item;
    uint32_t kind;
    int64_t timeout_ns;
    if (!parse_send(args, n, keywords, names, &object, &kind, &timeout_ns) || !check_open(side, "send_many"))
        return NULL;
    PyObject *iterator = PyObject_GetIter(object);
    if (iterator == NULL)
        return NULL;
    Py_ssize_t sent = 0;
    /* The iterator may run any Python, also our close(). */
    while ((item = PyIter_Next(iterator)) != NULL) {
        int failed = stage(side, item, kind, timeout_ns, sent, "send_many") < 0;
        Py_DECREF(item);
        if (failed)
            break;
        sent++;
    }
    Py_DECREF(iterator);
    if (side->is_open)
        show_staged(side);
    return PyErr_Occurred() ? NULL : PyLong_FromSsize_t(sent);
}

static PyMethodDef sender_methods[] = {
    {"send", (PyCFunction)(void (*)(void))sender_send, METH_FASTCALL | METH_KEYWORDS, send_doc},
    {"send_many", (PyCFunction)(void (*)(void))sender_send_many, METH_FASTCALL | METH_KEYWORDS, send_many_doc},
    {"close", sender_close, METH_NOARGS, "close()\n\nTells the receiver that nothing follows, and lets go of the memory. Repeatable."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef sender_getset[] = {{"closed", side_closed, NULL, "Whether this side was closed.", NULL}, {NULL, NULL, NULL, NULL, NULL}};

PyDoc_STRVAR(sender_doc,
             "Sender(data, producer, consumer, rings, bell, *, peer_sleeping=None, own_sleeping=None)\n\n"
             "The producing side of a ring; one at a time. `data` (its length is the ring's size), `producer`\n"
             "(sym_ring_producer_t, writable) and `consumer` (sym_ring_consumer_t) are buffers over shared memory, held\n"
             "until close(). `rings` is the receiver's bell: a writable u32 (futex) or the descriptor of a pipe; `bell`\n"
             "the own one. Flags default to those in producer and consumer. Goes on from the words it finds; zeroed\n"
             "memory is an empty ring.");

static PyType_Slot sender_slots[] = {{Py_tp_new, sender_new}, {Py_tp_dealloc, sender_dealloc}, {Py_tp_methods, sender_methods},
                                     {Py_tp_getset, sender_getset}, {Py_tp_doc, (void *)sender_doc}, {0, NULL}};

static PyType_Spec sender_spec = {
    .name = "symphony.native._door.Sender", .basicsize = sizeof(side_t), .flags = Py_TPFLAGS_DEFAULT, .slots = sender_slots};

/* ---- Receiver ---- */

/* One record of the ring as an exporter of its bytes; the memoryview over it keeps it, and it the receiver, alive. */
typedef struct {
    PyObject_HEAD
    side_t *side;
    const void *payload;
    Py_ssize_t length;
} view_t;

static int view_get(PyObject *self, Py_buffer *buffer, int flags)
{
    view_t *view = (view_t *)self;
    if (PyBuffer_FillInfo(buffer, self, (void *)(uintptr_t)view->payload, view->length, 1, flags) < 0)
        return -1;
    view->side->exports++;
    return 0;
}

static void view_release(PyObject *self, Py_buffer *buffer)
{
    (void)buffer;
    ((view_t *)self)->side->exports--;
}

static void view_dealloc(PyObject *self)
{
    PyObject *side = (PyObject *)((view_t *)self)->side;
    plain_dealloc(self);
    Py_DECREF(side);
}

static PyType_Slot view_slots[] = {
    {Py_tp_dealloc, view_dealloc}, {Py_bf_getbuffer, view_get}, {Py_bf_releasebuffer, view_release}, {0, NULL}};

static PyType_Spec view_spec = {
    .name = "symphony.native._door.View", .basicsize = sizeof(view_t), .slots = view_slots,
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION};

static void release_to(side_t *side, uint64_t end)
{
    sym_ring_release_spsc(&side->consumer, end);
    ring_if_asleep(side);
}

static int no_views(side_t *side, const char *what)
{
    if (side->exports == 0)
        return 1;
    PyErr_Format(PyExc_BufferError, "%s: %zd views still look into the ring; release them first", what, side->exports);
    return 0;
}

/* Polls, waiting for the first record. How many, 0 timed out, -1 with an exception set. `alone`: not while views are
 * in use, also such as came while it waited. */
static int poll_side(side_t *side, sym_view_t *views, int n, int64_t timeout_ns, int alone, const char *what)
{
    for (;;) {
        if (alone && !no_views(side, what))
            return -1;
        int count = sym_ring_poll_spsc(&side->consumer, views, n);
        if (count > 0)
            return count;
        if (count < 0)
            return set_error(side, count, what);
        int answer = wait_side(side, -1, timeout_ns, what);
        if (answer <= 0)
            return answer;
    }
}

static PyObject *refuse_wait(side_t *side, const char *what)
{
    return PyErr_Format(side->door->timeout, "%s: no record came within the time-out", what);
}

static int parse_timeout(PyObject *const *args, Py_ssize_t n, PyObject *keywords, int64_t *timeout_ns)
{
    static const char *const names[] = {"timeout"};
    PyObject *out[1];
    return take(args, n, keywords, names, 1, out) && (*timeout_ns = timeout_of(out[0])) >= FOREVER;
}

PyDoc_STRVAR(receive_doc,
             "receive(timeout=None) -> bytes\n\n"
             "The next record's bytes, a copy; its place in the ring is free again. Waits at most `timeout` seconds (None:\n"
             "for ever, 0: not at all). `kind` then says the record's kind.\n"
             "Raises WaitTimeout, RingClosed (the sender closed and everything was read), RingCorrupt, and BufferError\n"
             "while views of receive_view are in use.");

static PyObject *receiver_receive(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *keywords)
{
    side_t *side = (side_t *)self;
    sym_view_t view;
    int64_t timeout_ns;
    if (!parse_timeout(args, n, keywords, &timeout_ns) || !check_open(side, "receive"))
        return NULL;
    int count = poll_side(side, &view, 1, timeout_ns, 1, "receive");
    if (count <= 0)
        return count == 0 ? refuse_wait(side, "receive") : NULL;
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)(uintptr_t)view.address, view.length);
    if (bytes == NULL) {
        side->consumer.read = view.position;
        return NULL;
    }
    side->kind = view.kind;
    release_to(side, view.end);
    return bytes;
}

PyDoc_STRVAR(receive_view_doc,
             "receive_view(timeout=None) -> memoryview\n\n"
             "The next record without a copy: read-only, valid until it is released. Several may be open. release() gives\n"
             "the space of all of them back to the sender. Waits and raises as receive().");

static PyObject *receiver_receive_view(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *keywords)
{
    side_t *side = (side_t *)self;
    sym_view_t record;
    int64_t timeout_ns;
    if (!parse_timeout(args, n, keywords, &timeout_ns) || !check_open(side, "receive_view"))
        return NULL;
    int count = poll_side(side, &record, 1, timeout_ns, 0, "receive_view");
    if (count <= 0)
        return count == 0 ? refuse_wait(side, "receive_view") : NULL;
    view_t *view = PyObject_New(view_t, (PyTypeObject *)side->door->view_type);
    if (view == NULL) {
        side->consumer.read = record.position;
        return NULL;
    }
    view->side = side;
    Py_INCREF(self);
    view->payload = (const void *)(uintptr_t)record.address;
    view->length = record.length;
    side->kind = record.kind;
    /* Making it may collect garbage, whose finalizers may close this side: it counts as looked into from here on. */
    side->exports++;
    PyObject *memory = PyMemoryView_FromObject((PyObject *)view);
    side->exports--;
    Py_DECREF(view);
    return memory;
}

PyDoc_STRVAR(release_doc,
             "release()\n\n"
             "Gives the space of every record received by receive_view back to the sender. BufferError while one of the\n"
             "views is still in use (`with receiver.receive_view() as view:` ends its use).");

static PyObject *receiver_release(PyObject *self, PyObject *none)
{
    (void)none;
    side_t *side = (side_t *)self;
    if (!check_open(side, "release") || !no_views(side, "release"))
        return NULL;
    release_to(side, side->consumer.read);
    Py_RETURN_NONE;
}

/* Appends the records as bytes; 0, or -1 with an exception set. */
static int append_records(PyObject *list, const sym_view_t *views, int count)
{
    for (int i = 0; i < count; i++) {
        PyObject *bytes = PyBytes_FromStringAndSize((const char *)(uintptr_t)views[i].address, views[i].length);
        if (bytes == NULL || PyList_Append(list, bytes) < 0) {
            Py_XDECREF(bytes);
            return -1;
        }
        Py_DECREF(bytes);
    }
    return 0;
}

PyDoc_STRVAR(receive_many_doc,
             "receive_many(n, timeout=None) -> list[bytes]\n\n"
             "Up to n records, copies, freed together; waits for the first only. Empty when none came within the time-out.\n"
             "Raises as receive().");

static PyObject *receiver_receive_many(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *keywords)
{
    static const char *const names[] = {"n", "timeout"};
    side_t *side = (side_t *)self;
    sym_view_t views[VIEWS_AT_ONCE];
    PyObject *out[2];
    if (!take(args, n, keywords, names, 2, out))
        return NULL;
    int64_t most = out[0] ? PyLong_AsLongLong(out[0]) : VIEWS_AT_ONCE, timeout_ns = timeout_of(out[1]);
    if (PyErr_Occurred())
        return NULL;
    PyObject *list = PyList_New(0);
    if (list && !check_open(side, "receive_many"))
        Py_CLEAR(list);
    if (list == NULL)
        return NULL;
    int64_t total = 0;
    uint64_t first = 0;
    while (list && total < most) {
        int want = most - total < VIEWS_AT_ONCE ? (int)(most - total) : VIEWS_AT_ONCE;
        int count = total ? sym_ring_poll_spsc(&side->consumer, views, want)
                          : poll_side(side, views, want, timeout_ns, 1, "receive_many");
        if (count < 0 && total == 0) {
            Py_DECREF(list);
            return NULL;
        }
        /* Damage after good records is told by the next call: these are delivered first. */
        if (count <= 0)
            break;
        if (total == 0)
            first = views[0].position;
        if (append_records(list, views, count) < 0)
            Py_CLEAR(list);
        side->kind = views[count - 1].kind;
        total += count;
    }
    if (list == NULL)
        side->consumer.read = first;
    else if (total)
        release_to(side, side->consumer.read);
    return list;
}

static PyObject *receiver_kind(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLong(((side_t *)self)->kind);
}

static PyMethodDef receiver_methods[] = {
    {"receive", (PyCFunction)(void (*)(void))receiver_receive, METH_FASTCALL | METH_KEYWORDS, receive_doc},
    {"receive_view", (PyCFunction)(void (*)(void))receiver_receive_view, METH_FASTCALL | METH_KEYWORDS, receive_view_doc},
    {"receive_many", (PyCFunction)(void (*)(void))receiver_receive_many, METH_FASTCALL | METH_KEYWORDS, receive_many_doc},
    {"release", receiver_release, METH_NOARGS, release_doc},
    {"close", receiver_close, METH_NOARGS, "close()\n\nTells the sender that nobody reads on, and lets go of the memory. Repeatable."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef receiver_getset[] = {{"closed", side_closed, NULL, "Whether this side was closed.", NULL},
                                        {"kind", receiver_kind, NULL, "Kind of the record received last.", NULL},
                                        {NULL, NULL, NULL, NULL, NULL}};

PyDoc_STRVAR(receiver_doc,
             "Receiver(data, producer, consumer, rings, bell, *, peer_sleeping=None, own_sleeping=None)\n\n"
             "The consuming side of a ring; one at a time. As Sender, but only `consumer` (and the own flag and the bell\n"
             "that it rings) must be writable.");

static PyType_Slot receiver_slots[] = {{Py_tp_new, receiver_new}, {Py_tp_dealloc, receiver_dealloc}, {Py_tp_methods, receiver_methods},
                                       {Py_tp_getset, receiver_getset}, {Py_tp_doc, (void *)receiver_doc}, {0, NULL}};

static PyType_Spec receiver_spec = {
    .name = "symphony.native._door.Receiver", .basicsize = sizeof(side_t), .flags = Py_TPFLAGS_DEFAULT, .slots = receiver_slots};

/* ---- module ---- */

static int take_errors(door_t *door)
{
    PyObject *errors = PyImport_ImportModule("symphony.model.errors");
    if (errors == NULL)
        return -1;
    door->full = PyObject_GetAttrString(errors, "RingFull");
    door->closed = PyObject_GetAttrString(errors, "RingClosed");
    door->corrupt = PyObject_GetAttrString(errors, "RingCorrupt");
    door->too_long = PyObject_GetAttrString(errors, "RecordTooLong");
    door->ring_error = PyObject_GetAttrString(errors, "RingError");
    door->timeout = PyObject_GetAttrString(errors, "WaitTimeout");
    Py_DECREF(errors);
    return PyErr_Occurred() ? -1 : 0;
}

static int add_type(PyObject *module, PyType_Spec *spec, PyObject **keep)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type == NULL)
        return -1;
    int code = keep ? 0 : PyModule_AddType(module, (PyTypeObject *)type);
    if (keep)
        *keep = type;
    else
        Py_DECREF(type);
    return code;
}

static int door_exec(PyObject *module)
{
    door_t *door = PyModule_GetState(module);
    if (take_errors(door) < 0 || add_type(module, &bound_spec, &door->bound_type) < 0 ||
        add_type(module, &view_spec, &door->view_type) < 0 || add_type(module, &sender_spec, NULL) < 0 ||
        add_type(module, &receiver_spec, NULL) < 0 || sym_door_add_channel(module) < 0)
        return -1;
    return 0;
}

static int door_traverse(PyObject *module, visitproc visit, void *arg)
{
    door_t *door = PyModule_GetState(module);
    Py_VISIT(door->bound_type);
    Py_VISIT(door->view_type);
    return 0;
}

static int door_clear(PyObject *module)
{
    door_t *door = PyModule_GetState(module);
    Py_CLEAR(door->full);
    Py_CLEAR(door->closed);
    Py_CLEAR(door->corrupt);
    Py_CLEAR(door->too_long);
    Py_CLEAR(door->timeout);
    Py_CLEAR(door->ring_error);
    Py_CLEAR(door->bound_type);
    Py_CLEAR(door->view_type);
    return 0;
}

static PyMethodDef door_methods[] = {
    {"bind", (PyCFunction)(void (*)(void))door_bind, METH_VARARGS | METH_KEYWORDS, bind_doc},
    {"thread_slot", door_thread_slot, METH_NOARGS, slot_doc},
    {"set_thread_slot", door_set_thread_slot, METH_O, set_slot_doc},
    {NULL, NULL, 0, NULL}};

static PyModuleDef_Slot door_slots[] = {{Py_mod_exec, door_exec}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "symphony.native._door",
    .m_doc = "The fast door: bound kernels and the sides of a ring, without cffi's cost.",
    .m_size = sizeof(door_t),
    .m_methods = door_methods,
    .m_slots = door_slots,
    .m_traverse = door_traverse,
    .m_clear = door_clear,
};

PyMODINIT_FUNC PyInit__door(void) { return PyModuleDef_Init(&definition); }
