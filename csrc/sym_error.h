/* What the C operations refuse with. Negative, so that a count or a success never collides with one; translated
 * into exceptions in one place, symphony/native/__init__.py. */
#ifndef SYM_ERROR_H
#define SYM_ERROR_H

enum sym_error {
    SYM_E_CORRUPT = -1,         /* a shared word or record header lies outside its bounds */
    SYM_E_CLOSED = -2,          /* the other side closed, and nothing is left */
    SYM_E_SIZE = -3,            /* size not a power of two of at least 256, or not the one expected */
    SYM_E_ALIGN = -4,           /* an address that is null or not aligned */
    SYM_E_FRESH = -5,           /* no stamp: not whole yet, or being removed */
    SYM_E_MAGIC = -6,           /* the bytes are not a segment of Symphony */
    SYM_E_ABI = -7,             /* made by another ABI version */
    SYM_E_LAYOUT = -8,          /* same ABI version, other layout of structs */
    SYM_E_KIND = -9,            /* a segment of another kind */
    SYM_E_BUSY = -10            /* a writer was in the way for every try */
};
#endif
