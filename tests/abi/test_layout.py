"""Three witnesses of every offset of the memory ABI: the C compiler, cffi (with it NumPy), the committed listing."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from symphony.native import ffi, layout, lib

ROOT = Path(__file__).resolve().parents[2]
HEADERS = sorted((ROOT / "shm").glob("*.h"))
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

FORM = re.compile(
    r"    (?P<type>u?int(8|16|32|64)_t|sym_\w+_t) (?P<name>\w+)(\[\d+\])?;"
    r"( +/\* w:(?P<writer>\w+(:\w+)?) r:(?P<reader>\w+(:\w+)?) \| ?.*\*/)?$"
)
WRITER_ORDERS = {None, "relaxed", "release", "exchange", "cas", "rmw"}
READER_ORDERS = {None, "relaxed", "acquire", "seq_cst", "once"}


def listed_structs():
    """(struct, size, [(field, type, offset, size, count)]) of the committed listing, read by its lines alone."""
    structs = []
    for line in (ROOT / "shm" / "layout.txt").read_text().splitlines():
        words = line.split(" |")[0].split()
        if words[0] == "struct":
            structs.append((words[1], int(words[2]), []))
        elif line.startswith("  ") and len(words) == 7:
            structs[-1][2].append((words[0], words[1], *map(int, words[2:5])))
    return structs


def listed_constants():
    lines = (ROOT / "shm" / "layout.txt").read_text().splitlines()
    return {words[0]: int(words[1]) for words in map(str.split, lines) if len(words) == 2 and words[0] != "enum"}


def test_every_struct_of_the_headers_is_listed():
    defined = [name for path in HEADERS for name in re.findall(r"^\} (sym_\w+);", path.read_text(), re.M)]
    assert sorted(defined) == sorted(name for name, _, _ in listed_structs())
    assert len(defined) > 30


def test_the_c_compiler_agrees_with_the_listing(tmp_path):
    lines = ["#include <stddef.h>"] + [f'#include "shm/{path.name}"' for path in HEADERS]
    for struct, size, fields in listed_structs():
        lines.append(f'_Static_assert(sizeof({struct}) == {size}, "size of {struct}");')
        for name, kind, offset, length, count in fields:
            member = f"(({struct} *)0)->{name}"
            lines.append(f'_Static_assert(offsetof({struct}, {name}) == {offset}, "offset of {struct}.{name}");')
            lines.append(f'_Static_assert(sizeof({member}) == {length}, "size of {struct}.{name}");')
            lines.append(f'_Static_assert(sizeof({kind}) * {count} == {length}, "type of {struct}.{name}");')
    lines += [f'_Static_assert({name} == {value}, "{name}");' for name, value in listed_constants().items()]
    program = tmp_path / "abi_assert.c"
    program.write_text("\n".join(lines) + "\n")
    compile_headers(program)


def test_no_struct_has_hidden_padding(tmp_path):
    program = tmp_path / "padded.c"
    program.write_text("".join(f'#include "shm/{path.name}"\n' for path in HEADERS))
    compile_headers(program, "-Wpadded")
    for struct, size, fields in listed_structs():
        end = 0
        for name, _, offset, length, _ in fields:
            assert offset == end, f"{struct}.{name} begins {offset - end} bytes after the field before it ends"
            end = offset + length
        assert end == size, struct


def compile_headers(program, *flags):
    assert COMPILER, "a C compiler is needed: it built the engine"
    command = [COMPILER, "-std=c11", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", *flags, f"-I{ROOT}", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_cffi_agrees_with_the_listing():
    for struct, size, fields in listed_structs():
        ctype = ffi.typeof(struct)
        assert ffi.sizeof(ctype) == size
        seen = [(name, field.offset, ffi.sizeof(field.type)) for name, field in ctype.fields]
        assert seen == [(name, offset, length) for name, _, offset, length, _ in fields]
    for name, value in listed_constants().items():
        assert getattr(lib, name) == value


def test_numpy_agrees_with_the_listing():
    for struct, size, fields in listed_structs():
        dtype = layout.dtype(struct)
        assert dtype.itemsize == size
        seen = [(name, dtype.fields[name][1], dtype.fields[name][0].itemsize) for name in dtype.names]
        assert seen == [(name, offset, length) for name, _, offset, length, _ in fields]


def test_the_listing_is_the_generator_s():
    command = [sys.executable, str(ROOT / "tools" / "gen_layout.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", HEADERS, ids=lambda path: path.name)
def test_every_field_says_who_writes_and_who_reads_it_in_the_fixed_form(path):
    fields = 0
    for body in re.findall(r"typedef struct \{\n(.*?)\n\}", path.read_text(), re.S):
        for line in body.splitlines():
            match = FORM.match(line)
            assert match, f"{path.name}: not one field with its comment in the fixed form: {line.strip()}"
            check_owner(path.name, match)
            fields += 1
    assert fields or path.name == "types.h"


def check_owner(header, match):
    name, writer, reader = match["name"], match["writer"], match["reader"]
    if name.startswith(("pad", "reserved")):
        return
    assert writer and reader, f"{header}: {name} does not say who writes and who reads it"
    assert (writer.split(":") + [None])[1] in WRITER_ORDERS, f"{header}: {name}: order of {writer}"
    assert (reader.split(":") + [None])[1] in READER_ORDERS, f"{header}: {name}: order of {reader}"


@pytest.mark.parametrize("path", HEADERS, ids=lambda path: path.name)
def test_the_headers_keep_to_the_dialect_that_cffi_reads(path):
    text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
    for word in ("_Alignas", "__attribute__", "volatile", "static", "inline", "union", "//", "*"):
        assert word not in text, f"{path.name}: {word} has no place in the memory ABI"
    for line in text.splitlines():
        if line.startswith("#"):
            assert re.match(r"#(ifndef|define|endif|include)\b", line), line


def test_a_reworded_comment_keeps_the_fingerprint_and_a_moved_field_does_not():
    text = layout.layout_text()
    assert layout.fingerprint_of(text) == layout.FINGERPRINT != 0
    reworded = re.sub(r"\| .*", "| something else", text)
    assert layout.fingerprint_of(reworded) == layout.FINGERPRINT
    assert layout.fingerprint_of(text.replace("  word uint64_t 0 8", "  word uint64_t 8 8")) != layout.FINGERPRINT
    assert layout.fingerprint_of(text.replace("loop:cas", "loop:relaxed")) != layout.FINGERPRINT


def test_states_have_short_names():
    assert layout.names("sym_node_state")[3] == "done"
    assert layout.names("sym_segment_kind") == {1: "state", 2: "run", 3: "arena", 4: "out", 5: "in", 6: "ring"}
    assert layout.constants["SYM_NODE_DONE"] == layout.constants.SYM_NODE_DONE == 3
    with pytest.raises(KeyError):
        layout.names("sym_nothing")
    with pytest.raises(KeyError):
        layout.dtype("sym_nothing_t")


def test_the_layout_is_read_without_numpy():
    program = (
        "import sys\nfrom symphony.native import layout\nlayout.layout_text(), layout.names('sym_run_state')\n"
        "sys.exit(any(name in sys.modules for name in ('numpy', 'numba')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, cwd=ROOT).returncode == 0
