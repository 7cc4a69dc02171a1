"""The C operations under the compiler's sanitizers: address, undefined behaviour, threads."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
SOURCES = [*sorted((ROOT / "csrc").glob("*.c")), ROOT / "tests" / "csrc" / "main.c"]
NO_RANDOM_LAYOUT = ["setarch", "-R"]
"""The thread sanitizer keeps a map of the whole address space and cannot have its parts at random places."""


def build(folder, flags):
    """The test program's path; skips, and says so, where this compiler has no such sanitizer."""
    assert COMPILER, "a C compiler is needed: it built the engine"
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    command = [COMPILER, "-std=c11", "-g", "-O1", *flags, f"-I{ROOT}", "-pthread"]
    if subprocess.run([*command, str(probe), "-o", str(folder / "probe")], capture_output=True, check=False).returncode:
        pytest.skip(f"{COMPILER} does not know {flags[0]} here")
    program = folder / "main"
    done = subprocess.run(
        [*command, "-Wall", "-Wextra", "-Werror", *map(str, SOURCES), "-o", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return program


def run(command):
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_no_undefined_behaviour_and_no_byte_beyond_its_bounds(tmp_path, seed):
    program = build(tmp_path, ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"])
    done = run([str(program), str(seed)])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n") == 8


def test_no_data_race(tmp_path, seed):
    program = build(tmp_path, ["-fsanitize=thread"])
    done = run([*NO_RANDOM_LAYOUT, str(program), str(seed)])
    if "unexpected memory mapping" in done.stderr or "setarch" in done.stderr:
        pytest.skip(f"the thread sanitizer cannot run on this kernel: {done.stderr.strip().splitlines()[0]}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n") == 8


def test_only_the_door_has_static_or_thread_local_state():
    """csrc is linked into two modules: a variable of its own would exist twice."""
    for path in sorted((ROOT / "csrc").glob("*.c")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            words = line.split("(")[0].split()
            declares = line.startswith("static ") and "(" not in line and "const" not in words
            assert not declares and "_Thread_local" not in line, f"{path.name}:{number}: {line}"


def test_memory_orders_are_spelled_in_one_file():
    for path in [*(ROOT / "csrc").glob("*.[ch]"), *(ROOT / "symphony" / "native").glob("*.c")]:
        if path.name != "sym_atomic.h":
            assert "__ATOMIC" not in path.read_text() and "stdatomic" not in path.read_text(), path.name


def test_every_label_of_a_pair_stands_at_both_ends():
    text = "\n".join(path.read_text() for path in sorted((ROOT / "csrc").glob("*.c")))
    for label in ("records", "space", "closed", "sleeper", "bell", "stamp", "seqlock count", "seqlock words"):
        assert text.count(f"SYNC: {label}.") >= 2, f"SYNC: {label} stands at one end only"
