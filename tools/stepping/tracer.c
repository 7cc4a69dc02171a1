/* The tracer of tools/stepper.py: runs a forked child instruction by instruction, or system call by system call, and
 * kills it where it is told to. x86-64 Linux.
 *
 * The child asks to be traced (stepper_trace_me), then runs what is to be stepped between two markers, which are
 * break instructions: stepper_call does so for a compiled function of integers, stepper_begin and stepper_end for
 * anything else. The tracer is the process that forked it; one thread of it has to make all calls about one child.
 *
 * Ways of looking at an operation:
 *   stepper_pass   one run, stepped; after each instruction the shared memory is compared with what it was, and what
 *                  changed is written down. Since shared memory is all that outlives a killed process, this is every
 *                  image that a kill could leave, in one run.
 *   stepper_watch  the same for what takes too many instructions (the interpreter's): the child has the shared memory
 *                  read-only, so that each instruction that writes there faults, and is let through one at a time.
 *   stepper_reach, stepper_walk, stepper_syscall   a run up to one point, for a real SIGKILL there. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { LINE = 64, PAGE = 4096, BREAK = 0xcc, ARGUMENTS = 64, LEAD = 4096 };

/* What a call about a child ends with, beside counts. */
enum { ENDED = -1000000, STRANGE = -1000001, TOO_LONG = -1000002, NO_MEMORY = -1000003 };

void stepper_begin(void);
void stepper_end(void);

void stepper_gate(void);

/* Each marker is its first instruction: the tracer knows where the child is by these two addresses. The gate is where
 * the tracer has the child make system calls. */
__asm__(".text\n"
        ".globl stepper_begin\n.type stepper_begin,@function\nstepper_begin:\n\tint3\n\tret\n"
        ".size stepper_begin,.-stepper_begin\n"
        ".globl stepper_end\n.type stepper_end,@function\nstepper_end:\n\tint3\n\tret\n"
        ".size stepper_end,.-stepper_end\n"
        ".globl stepper_gate\n.type stepper_gate,@function\nstepper_gate:\n\tsyscall\n\tint3\n"
        ".size stepper_gate,.-stepper_gate\n"
        ".section .note.GNU-stack,\"\",@progbits\n.text\n");

/* ---- the child's side ---- */

EXPORT int stepper_trace_me(void) { return ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 ? 0 : -errno; }

/* Calls a function of up to 64 integers or addresses between the markers. More arguments than it takes do no harm: in
 * this calling convention the caller puts them away. */
EXPORT int64_t stepper_call(uint64_t function, const int64_t *given, int count)
{
    int64_t a[ARGUMENTS] = {0};
    memcpy(a, given, sizeof *a * (size_t)(count < ARGUMENTS ? count : ARGUMENTS));
    int64_t (*call)(int64_t, ...) = (int64_t (*)(int64_t, ...))(uintptr_t)function;
    stepper_begin();
#define A8(i) a[i], a[i + 1], a[i + 2], a[i + 3], a[i + 4], a[i + 5], a[i + 6], a[i + 7]
    int64_t result = call(A8(0), A8(8), A8(16), A8(24), A8(32), A8(40), A8(48), A8(56));
#undef A8
    stepper_end();
    return result;
}

/* ---- what is watched ---- */

/* A piece of shared memory in the tracer's own mapping, and a copy of what it held at the last look. */
typedef struct {
    const uint8_t *memory;
    uint8_t *seen;
    uint64_t size;              /* a multiple of 64 */
} range_t;

/* A word that changed: after instruction `step` it held `value`. */
typedef struct {
    uint64_t step;
    uint32_t range;
    uint32_t word;
    uint64_t value;
} change_t;

typedef struct {
    uint64_t *places;           /* [i]: address of the instruction after i have been executed */
    uint64_t place_count, place_room;
    change_t *changes;
    uint64_t change_count, change_room;
    int64_t result;             /* what the function returned */
} trace_t;

static int grow(void **rows, uint64_t *room, uint64_t count, size_t size)
{
    if (count < *room)
        return 1;
    uint64_t more = *room ? *room * 2 : 4096;
    void *larger = realloc(*rows, more * size);
    if (larger == NULL)
        return 0;
    *rows = larger;
    *room = more;
    return 1;
}

static int note_place(trace_t *trace, uint64_t address)
{
    if (!grow((void **)&trace->places, &trace->place_room, trace->place_count, sizeof *trace->places))
        return 0;
    trace->places[trace->place_count++] = address;
    return 1;
}

static int note_line(trace_t *trace, range_t *range, uint32_t index, uint64_t at, uint64_t step)
{
    for (uint64_t inside = at; inside < at + LINE; inside += 8) {
        uint64_t now, before;
        memcpy(&now, range->memory + inside, 8);
        memcpy(&before, range->seen + inside, 8);
        if (now == before)
            continue;
        if (!grow((void **)&trace->changes, &trace->change_room, trace->change_count, sizeof *trace->changes))
            return 0;
        trace->changes[trace->change_count++] = (change_t){step, index, (uint32_t)(inside / 8), now};
        memcpy(range->seen + inside, &now, 8);
    }
    return 1;
}

static int look(trace_t *trace, range_t *ranges, int count, uint64_t step)
{
    for (int i = 0; i < count; i++) {
        if (memcmp(ranges[i].memory, ranges[i].seen, ranges[i].size) == 0)
            continue;
        for (uint64_t at = 0; at < ranges[i].size; at += LINE)
            if (memcmp(ranges[i].memory + at, ranges[i].seen + at, LINE) && !note_line(trace, ranges + i, i, at, step))
                return 0;
    }
    return 1;
}

/* ---- the child from outside ---- */

static uint64_t peek_user(pid_t pid, size_t offset)
{
    errno = 0;
    return (uint64_t)ptrace(PTRACE_PEEKUSER, pid, (void *)offset, NULL);
}

static uint64_t place_of(pid_t pid) { return peek_user(pid, offsetof(struct user_regs_struct, rip)); }

static uint64_t stack_of(pid_t pid) { return peek_user(pid, offsetof(struct user_regs_struct, rsp)); }

/* Waits for the next stop. 0: stopped by a trap; the number of another signal, which is passed on by the next
 * resume; ENDED when the child is gone. */
static int await_stop(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, __WALL) < 0)
        if (errno != EINTR)
            return ENDED;
    if (!WIFSTOPPED(status))
        return ENDED;
    int signal = WSTOPSIG(status) & 0x7f;
    return signal == SIGTRAP ? 0 : signal;
}

static int is_fault(int signal)
{
    return signal == SIGSEGV || signal == SIGBUS || signal == SIGILL || signal == SIGFPE || signal == SIGABRT;
}

/* One instruction. 0, ENDED, or STRANGE after a fault. */
static int step(pid_t pid)
{
    int signal = 0;
    do {
        if (ptrace(PTRACE_SINGLESTEP, pid, NULL, (void *)(intptr_t)signal) < 0)
            return ENDED;
        signal = await_stop(pid);
        if (signal < 0)
            return ENDED;
        if (is_fault(signal))
            return STRANGE;
    } while (signal);
    return 0;
}

/* On to the next trap. */
static int go(pid_t pid, int request)
{
    int signal = 0;
    do {
        if (ptrace(request, pid, NULL, (void *)(intptr_t)signal) < 0)
            return ENDED;
        signal = await_stop(pid);
        if (signal < 0)
            return ENDED;
        if (is_fault(signal))
            return STRANGE;
    } while (signal);
    return 0;
}

/* Waits for the begin marker. Everything else is done with the child standing there. */
EXPORT int stepper_await(pid_t pid)
{
    int code = await_stop(pid);
    if (code)
        return code < 0 ? code : STRANGE;
    if (ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD)) < 0)
        return -errno;
    return place_of(pid) == (uint64_t)(uintptr_t)stepper_begin + 1 ? 0 : STRANGE;
}

/* From the begin marker to the first instruction of `function`; the address to which it returns is put at *back. */
static int enter(pid_t pid, uint64_t function, uint64_t *back, uint64_t *stack)
{
    for (int i = 0; i < LEAD; i++) {
        int code = step(pid);
        if (code)
            return code;
        if (place_of(pid) != function)
            continue;
        *stack = stack_of(pid);
        errno = 0;
        *back = (uint64_t)ptrace(PTRACE_PEEKDATA, pid, (void *)*stack, NULL);
        return errno ? -errno : 0;
    }
    return TOO_LONG;
}

/* Whether the child has come to the end: back from the function, or, without one, at the end marker. */
static int over(pid_t pid, uint64_t place, uint64_t function, uint64_t back, uint64_t stack)
{
    if (function == 0)
        return place == (uint64_t)(uintptr_t)stepper_end;
    return place == back && stack_of(pid) > stack;
}

/* Steps the child from the begin marker to the end and writes down, at each instruction, where it is and what of the
 * shared memory it changed. `function`: the first instruction to count, or 0: everything up to the end marker counts.
 * The number of instructions, or a code. The child is left standing at the end. */
EXPORT int64_t stepper_pass(pid_t pid, uint64_t function, range_t *ranges, int count, uint64_t limit, trace_t *trace)
{
    uint64_t back = 0, stack = 0;
    int code = function ? enter(pid, function, &back, &stack) : 0;
    if (code)
        return code;
    if (!look(trace, ranges, count, 0) || !note_place(trace, place_of(pid)))
        return NO_MEMORY;
    for (uint64_t n = 1; n <= limit; n++) {
        code = step(pid);
        if (code)
            return code;
        uint64_t place = place_of(pid);
        if (!look(trace, ranges, count, n) || !note_place(trace, place))
            return NO_MEMORY;
        if (over(pid, place, function, back, stack)) {
            trace->result = (int64_t)peek_user(pid, offsetof(struct user_regs_struct, rax));
            return (int64_t)n;
        }
    }
    return TOO_LONG;
}

/* ---- by faults ---- */

/* Has the child call mprotect on a range, wherever it stands. 0 or a code. */
static int protect(pid_t pid, const range_t *range, int protection)
{
    struct user_regs_struct kept, call;
    if (ptrace(PTRACE_GETREGS, pid, NULL, &kept) < 0)
        return -errno;
    call = kept;
    call.rip = (uint64_t)(uintptr_t)stepper_gate;
    call.rax = SYS_mprotect;
    call.orig_rax = (uint64_t)-1;
    call.rdi = (uint64_t)(uintptr_t)range->memory;
    call.rsi = range->size;
    call.rdx = (uint64_t)protection;
    if (ptrace(PTRACE_SETREGS, pid, NULL, &call) < 0)
        return -errno;
    int code = go(pid, PTRACE_CONT);
    if (code)
        return code;
    int refused = (int)peek_user(pid, offsetof(struct user_regs_struct, rax));
    return ptrace(PTRACE_SETREGS, pid, NULL, &kept) < 0 ? -errno : refused;
}

/* The watched range that the child was about to write when it stopped by SIGSEGV, or -1. */
static int range_of_fault(pid_t pid, const range_t *ranges, int count, uint64_t *inside)
{
    siginfo_t told;
    if (ptrace(PTRACE_GETSIGINFO, pid, NULL, &told) < 0)
        return -1;
    for (int i = 0; i < count; i++) {
        *inside = (uint64_t)((const uint8_t *)told.si_addr - ranges[i].memory);
        if (*inside < ranges[i].size)
            return i;
    }
    return -1;
}

/* Lets the one instruction through that stopped at a range, and writes down what it changed: on that page or the next. */
static int let_through(pid_t pid, range_t *ranges, int count, int at, uint64_t inside, uint64_t number, trace_t *trace)
{
    uint64_t begin = inside / PAGE * PAGE;
    uint64_t end = begin + 2 * PAGE < ranges[at].size ? begin + 2 * PAGE : ranges[at].size;
    int code = protect(pid, ranges + at, PROT_READ | PROT_WRITE);
    if (code)
        return code;
    if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) < 0)
        return ENDED;
    code = await_stop(pid);
    if (code == SIGSEGV) {
        /* An instruction that writes into two ranges: the other one too, then it is done again. */
        uint64_t other;
        int more = range_of_fault(pid, ranges, count, &other);
        if (more < 0 || more == at)
            return STRANGE;
        code = let_through(pid, ranges, count, more, other, number, trace);
    }
    if (code)
        return code < 0 ? code : STRANGE;
    for (uint64_t line = begin; line < end; line += LINE)
        if (memcmp(ranges[at].memory + line, ranges[at].seen + line, LINE) &&
            !note_line(trace, ranges + at, (uint32_t)at, line, number))
            return NO_MEMORY;
    return protect(pid, ranges + at, PROT_READ);
}

/* Runs the child from the begin marker to the end marker and writes down each change of the watched memory. Stops
 * before write number `stop` (from 0), if it comes to it. How many writes there were, or a code. */
EXPORT int64_t stepper_watch(pid_t pid, range_t *ranges, int count, uint64_t stop, trace_t *trace)
{
    for (int i = 0; i < count; i++) {
        int code = protect(pid, ranges + i, PROT_READ);
        if (code)
            return code;
    }
    int pass_on = 0;
    for (uint64_t number = 0;;) {
        if (ptrace(PTRACE_CONT, pid, NULL, (void *)(intptr_t)pass_on) < 0)
            return ENDED;
        int signal = await_stop(pid);
        pass_on = 0;
        if (signal < 0)
            return ENDED;
        if (signal == 0)
            return place_of(pid) == (uint64_t)(uintptr_t)stepper_end + 1 ? (int64_t)number : STRANGE;
        if (!is_fault(signal)) {
            pass_on = signal;
            continue;
        }
        uint64_t inside;
        int at = signal == SIGSEGV ? range_of_fault(pid, ranges, count, &inside) : -1;
        if (at < 0)
            return STRANGE;
        if (number == stop)
            return (int64_t)number;
        int code = let_through(pid, ranges, count, at, inside, ++number, trace);
        if (code)
            return code;
    }
}

EXPORT void stepper_forget(trace_t *trace)
{
    free(trace->places);
    free(trace->changes);
    memset(trace, 0, sizeof *trace);
}

static int set_byte(pid_t pid, uint64_t address, uint8_t value, uint8_t *old)
{
    uint64_t at = address & ~UINT64_C(7);
    unsigned shift = (unsigned)(address & 7) * 8;
    errno = 0;
    uint64_t word = (uint64_t)ptrace(PTRACE_PEEKTEXT, pid, (void *)at, NULL);
    if (errno)
        return -errno;
    if (old)
        *old = (uint8_t)(word >> shift);
    word = (word & ~(UINT64_C(0xff) << shift)) | (uint64_t)value << shift;
    return ptrace(PTRACE_POKETEXT, pid, (void *)at, (void *)word) == 0 ? 0 : -errno;
}

static int set_place(pid_t pid, uint64_t place)
{
    size_t offset = offsetof(struct user_regs_struct, rip);
    return ptrace(PTRACE_POKEUSER, pid, (void *)offset, (void *)place) == 0 ? 0 : -errno;
}

/* From the begin marker to where the child is about to execute the instruction at `place` for the `times`-th time, at
 * full speed in between. 0 or a code. */
EXPORT int stepper_reach(pid_t pid, uint64_t function, uint64_t place, uint64_t times)
{
    uint64_t back, stack;
    int code = function ? enter(pid, function, &back, &stack) : 0;
    if (code)
        return code;
    if (place_of(pid) == place && --times == 0)
        return 0;
    for (;;) {
        uint8_t old;
        if (place_of(pid) == place && (code = step(pid)) != 0)
            return code;
        if ((code = set_byte(pid, place, BREAK, &old)) != 0 || (code = go(pid, PTRACE_CONT)) != 0)
            return code;
        uint64_t at = place_of(pid);
        if ((code = set_byte(pid, place, old, NULL)) != 0)
            return code;
        if (at != place + 1)
            return STRANGE;
        if ((code = set_place(pid, place)) != 0)
            return code;
        if (--times == 0)
            return 0;
    }
}

/* From the begin marker so many instructions on, one by one. */
EXPORT int stepper_walk(pid_t pid, uint64_t function, uint64_t steps)
{
    uint64_t back, stack;
    int code = function ? enter(pid, function, &back, &stack) : 0;
    while (code == 0 && steps-- > 0)
        code = step(pid);
    return code;
}

/* On to the next entry or exit of a system call: its number (entry and exit of one come in turn), or -1 at the end
 * marker, or a code. */
EXPORT int64_t stepper_syscall(pid_t pid)
{
    int code = go(pid, PTRACE_SYSCALL);
    if (code)
        return code;
    if (place_of(pid) == (uint64_t)(uintptr_t)stepper_end + 1)
        return -1;
    return (int64_t)peek_user(pid, offsetof(struct user_regs_struct, orig_rax));
}

/* Lets the child run on untraced. */
EXPORT int stepper_let_go(pid_t pid) { return ptrace(PTRACE_DETACH, pid, NULL, NULL) == 0 ? 0 : -errno; }
