"""A short campaign: the tool of `make campaign`, for a few seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_random_kills_under_load_lose_nothing(seed):
    command = [sys.executable, "-m", "tools.campaign", "--seconds", "12", "--seed", str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=380, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["faults"] == []
    assert told["kills_in_all"] >= 1 and told["seen"]["runs"] >= 1, told
