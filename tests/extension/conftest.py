"""Players for tests: `play(code)` starts one, ready and with its values granted."""

import pytest

from tests.extension.stage import BASIC, Stage


@pytest.fixture
def play(tmp_path, monkeypatch):
    monkeypatch.setenv("SYMPHONY_RUNTIME_DIR", str(tmp_path / "run"))
    stages = []

    def start(code, manifest=BASIC, *, ready=True, grant=True, **more):
        folder = tmp_path / f"extension{len(stages)}"
        folder.mkdir()
        stage = Stage(folder, code, manifest, **more)
        stages.append(stage)
        if grant:
            stage.grant()
        return stage.await_ready() if ready else stage

    yield start
    for stage in stages:
        stage.close()
