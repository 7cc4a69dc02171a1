"""Builds `symphony.native._csym`: the C operations and the memory ABI behind cffi.

API mode, because there the C compiler checks every offset that cffi took from the headers. cffi knows no
preprocessor, so lines that begin with `#` are stripped and the rest of the headers is its declaration: there is one
description of the memory, read by both. Run by setup.py (`cffi_modules`), never imported at run time.
"""

import os
from pathlib import Path

from cffi import FFI

ROOT = Path(os.path.abspath(__file__)).parents[2]

SHM_HEADERS = ("types", "stamp", "ring", "channel", "owner", "pool", "dag", "artifact", "arbiter", "counter")
C_HEADERS = ("sym_error", "sym_clock", "sym_copy", "sym_bell", "sym_stamp", "sym_seqlock", "sym_ring")
C_SOURCES = ("sym_clock", "sym_copy", "sym_bell", "sym_stamp", "sym_seqlock", "sym_ring")

# Each word is used whole and through the types it was declared with, bytes of a ring by memcpy: strict aliasing may
# stay on. No -march: a wheel runs on every processor of its architecture.
COMPILE_ARGS = ["-O2", "-std=c11", "-Wall", "-Wextra"]

ATOMICS = """
{t} sym_load_relaxed_{b}(const {t} *word);
{t} sym_load_acquire_{b}(const {t} *word);
{t} sym_load_seq_cst_{b}(const {t} *word);
void sym_store_relaxed_{b}({t} *word, {t} value);
void sym_store_release_{b}({t} *word, {t} value);
{t} sym_exchange_{b}({t} *word, {t} value);
{t} sym_fetch_add_{b}({t} *word, {t} value);
int sym_compare_exchange_{b}({t} *word, {t} expected, {t} desired);
"""


def declarations() -> str:
    """Everything that cffi is told: the headers without their preprocessor lines, and the atomics."""
    paths = [ROOT / "shm" / f"{name}.h" for name in SHM_HEADERS] + [ROOT / "csrc" / f"{name}.h" for name in C_HEADERS]
    kept = [line for path in paths for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    atomics = [ATOMICS.format(t=f"uint{bits}_t", b=f"u{bits}") for bits in (32, 64)]
    return "\n".join(kept + atomics)


def sources() -> list[str]:
    """The C files, relative to the folder that the build runs in (setuptools refuses absolute ones)."""
    return [os.path.relpath(ROOT / "csrc" / f"{name}.c") for name in C_SOURCES]


def headers() -> list[str]:
    """Files whose change makes a new build necessary."""
    found = sorted([*(ROOT / "csrc").glob("*.h"), *(ROOT / "shm").glob("*.h")])
    return [os.path.relpath(path) for path in found]


def builder() -> FFI:
    ffi = FFI()
    ffi.cdef(declarations())
    included = [f'#include "shm/{name}.h"' for name in SHM_HEADERS]
    included += [f'#include "csrc/{name}.h"' for name in ("sym_atomic", *C_HEADERS)]
    ffi.set_source(
        "symphony.native._csym",
        "\n".join(included),
        sources=sources(),
        depends=headers(),
        include_dirs=[os.path.relpath(ROOT)],
        extra_compile_args=COMPILE_ARGS,
    )
    return ffi
