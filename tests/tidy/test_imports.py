"""What starts fast stays fast: who imports NumPy and numba, seen in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def imported(program):
    """Top-level modules that a program leaves imported."""
    command = [sys.executable, "-c", f"{program}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "program",
    [
        "import symphony",
        "import symphony.native.layout, symphony.native._door",
        "import symphony.ring",
        "from symphony import Priority, SymphonyError, Ring",
        "import symphony.keeper.__main__",
        "import symphony.inspect",
        "import symphony.cli.main",
    ],
)
def test_imports_neither_numpy_nor_numba(program):
    assert not imported(program) & {"numpy", "numba", "llvmlite"}


@pytest.mark.parametrize("program", ["import symphony.extension, symphony.extension.host", "import symphony.client"])
def test_imports_no_compiler(program):
    assert not imported(program) & {"numba", "llvmlite"}


def test_the_public_names_are_there_and_no_others():
    import symphony

    for name in symphony.__all__:
        assert getattr(symphony, name).__name__
    assert set(symphony.__all__) <= set(dir(symphony))
    with pytest.raises(AttributeError, match="Enigne"):
        _ = symphony.Enigne
