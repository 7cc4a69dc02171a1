"""What pyproject.toml cannot say: the two compiled modules, and where the packages lie.

The memory ABI, shm/, is a top-level folder of the source tree, because C and Python both stand on it. It is installed
as symphony/shm, so that an engine finds the listing that its segments carry without a source tree.
"""

import sys
from pathlib import Path

from setuptools import Extension, find_namespace_packages, setup

sys.path.insert(0, str(Path(__file__).resolve().parent / "symphony" / "native"))

import build as native

# Every name but the module's own stays inside, so that the door never binds to the symbols of _csym, which the
# compiled kernels load for the whole process.
door = Extension(
    "symphony.native._door",
    sources=["symphony/native/door.c", "symphony/native/door_channel.c", *native.sources()],
    depends=native.headers(),
    include_dirs=["."],
    extra_compile_args=[*native.COMPILE_ARGS, "-fvisibility=hidden"],
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    py_limited_api=True,
)

packages = find_namespace_packages(include=["symphony", "symphony.*"], exclude=["*.__pycache__", "*.__pycache__.*"])

setup(
    packages=[*packages, "symphony.shm"],
    package_dir={"symphony.shm": "shm"},
    package_data={"": ["*.toml", "*.yaml", "*.json", "*.txt", "*.h", "*.html", "*.js", "*.css", "py.typed"]},
    include_package_data=False,
    cffi_modules=["symphony/native/build.py:builder"],
    ext_modules=[door],
)
