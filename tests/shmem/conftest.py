"""A registry of an engine that does not run, and segments that are gone after the test."""

import os

import pytest

from symphony.shmem import space
from symphony.shmem.registry import Registry


@pytest.fixture
def instance():
    return f"shmem-{os.getpid()}"


@pytest.fixture
def registry(instance):
    """Whatever a test leaves listed is unlinked: the tests' own leak check then finds only what was never listed."""
    found = Registry(instance)
    yield found
    for name in found.names():
        space.unlink(name)
        found.leave(name)
