/* A copy by symbol, for compiled kernels that hold plain addresses. */
#ifndef SYM_COPY_H
#define SYM_COPY_H
#include <stdint.h>

/* Copies n bytes; the two must not overlap. */
void sym_copy(void *to, const void *from, uint64_t n);
#endif
