"""What is installed without a source tree works: the wheel, from the source distribution, in an environment of its own.

Nothing is fetched: the environment borrows the dependencies of this one by a path, which does not bring this one's
own Symphony along."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 600

pytestmark = [pytest.mark.slow, pytest.mark.timeout(DEADLINE_S)]

SOURCE_NEEDS = (
    "Makefile", "LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", ".ci/run", "shm/types.h", "shm/layout.txt",
    "csrc/sym_ring.c", "symphony/native/door.c", "symphony/pit/dag/README.md", "tools/fetch_model.sh",
    "tools/gen_layout.py",
    "tests/conftest.py", "tests/data/diamond.json", "perf/README.md", "docs/architecture.md",
)  # fmt: skip


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """(sdist, wheel built from it). Built from a copy of the committed and changed files, so the tree stays clean."""
    folder = tmp_path_factory.mktemp("build")
    tree = folder / "tree"
    for name in run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT).splitlines():
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes((ROOT / name).read_bytes())
    run([sys.executable, "setup.py", "-q", "sdist", "--dist-dir", str(folder)], cwd=tree)
    (sdist,) = folder.glob("*.tar.gz")
    run(["tar", "xzf", str(sdist)], cwd=folder)
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    run([sys.executable, "setup.py", "-q", "bdist_wheel", "--dist-dir", str(folder)], cwd=unpacked)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(distributions, tmp_path_factory):
    """Folder of the programs of an environment that has the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    run([*pip, str(distributions[1])])
    site = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_one_wheel_serves_every_python_from_3_11(distributions):
    assert "-cp311-abi3-linux_" in distributions[1].name
    names = zipfile.ZipFile(distributions[1]).namelist()
    assert sum(name.endswith(".abi3.so") for name in names) == 2
    assert sum(name.endswith(".so") for name in names) == 2


def test_the_wheel_carries_what_the_engine_reads_and_no_tests(distributions):
    names = set(zipfile.ZipFile(distributions[1]).namelist())
    tracked = run(["git", "ls-files", "symphony", "shm"], cwd=ROOT).splitlines()
    data = [name for name in tracked if name.endswith((".toml", ".txt", ".yaml", ".json", ".h"))]
    wanted = {f"symphony/{name}" if name.startswith("shm/") else name for name in data}
    assert len(wanted) > 12
    assert wanted <= names
    assert not [name for name in names if name.split("/")[0] not in ("symphony",) and ".dist-info/" not in name]


def test_the_source_distribution_holds_what_builds_tests_and_explains_it(distributions):
    sdist = distributions[0]
    unpacked = sdist.with_name(sdist.name.removesuffix(".tar.gz"))
    assert not [name for name in SOURCE_NEEDS if not (unpacked / name).is_file()]
    assert not list(unpacked.rglob("*.so"))


def test_an_installed_engine_plays_a_melody(installed, tmp_path):
    folder = tmp_path / "to read"
    folder.mkdir()
    (folder / "seen.txt").write_text("a line\nanother\n")
    (folder / "empty.txt").write_text("")
    runtime = tmp_path / "runtime"
    environment = {
        **os.environ,
        "PATH": f"{installed}:{os.environ['PATH']}",
        "SYMPHONY_RUNTIME_DIR": str(runtime),
    }
    environment.pop("PYTHONPATH", None)
    where = run(
        [installed / "python", "-c", "import symphony; print(symphony.__file__)"], cwd=tmp_path, env=environment
    )
    assert where.startswith(str(installed.parent))
    command = ["symphonyctl", "-o", "json", "play", "count", "-i", f"path={folder}"]
    told = json.loads(run(command, cwd=tmp_path, env=environment))["outputs"]["texts"]
    assert (told["texts"], told["lines"], told["words"]) == (2, 2, 3)
    # Segments and processes are looked at by the fixture around every test; the runtime folder is this engine's own.
    assert not [path for path in runtime.rglob("*") if path.is_dir()]
    module = run([installed / "python", "-m", "symphony", "--help"], cwd=tmp_path, env=environment)
    assert "play" in module
