"""`python -m tools.campaign [--seconds S] [--seed N]`: kills under load, counted.

An engine of its own is started and kept under load by clients that compare every byte and count every effect. Meanwhile
its processes are killed at random instants: Conductor (killed or stopped), players, Keeper, all at once. After the last
kill the load goes on alone for a moment (what only works while nothing is killed would show as much as what does not);
then everything is counted: lost acknowledged runs, doubled effects, torn bytes, and what is left in /dev/shm, of
processes and of files. The exit code is 1 if anything was.
"""

import argparse
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXTENSION = Path(__file__).resolve().parent
KINDS = {"conductor": 60, "conductor stopped": 4, "player": 26, "keeper": 5, "everything": 5}
"""What is killed, and how often of a hundred times."""
KEEPING = ["--hang-s", "1", "--stillborn", "1000000", "--deaths", "1000000"]
PATIENCE_S = 60.0


def ctl(name: str, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "symphony", "-n", name, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def up(name: str, *, recover: bool = False) -> None:
    """By the same door as symphonyctl's `up`, with a Keeper that does not give up: here the kills are meant."""
    from symphony.cli import start

    start.start(name, arguments=["--players", "2"], keeping=KEEPING, recover=recover)


def shared(name: str) -> set[str]:
    return {entry for entry in os.listdir("/dev/shm") if f".{name}." in entry}


def processes(name: str) -> set[int]:
    """Keeper, Conductor (spares too) and players of the engine, by their command lines and environments."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            token = b"SYMPHONY_CAMPAIGN=" + name.encode() in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if token and any(word.startswith(b"symphony.") for word in words):
            found.add(int(entry.name))
    return found


class Campaign:
    """One engine, its load and its kills."""

    def __init__(self, seconds: float, seed: int, clients: int) -> None:
        self.seconds, self.seed, self.clients = seconds, seed, clients
        self.random = random.Random(seed)
        self.name = f"camp{secrets.token_hex(4)}"
        self.kills: Counter[str] = Counter()
        self.back_ms: list[float] = []
        self.faults: list[str] = []

    def run(self) -> dict[str, Any]:
        from tools.campaign.load import Load

        with tempfile.TemporaryDirectory(prefix="symphony-campaign-") as folder:
            os.environ |= {
                "SYMPHONY_RUNTIME_DIR": f"{folder}/run", "SYMPHONY_EXTENSION_PATH": str(EXTENSION),
                "SYMPHONY_CAMPAIGN": self.name, "PYTHONPATH": str(ROOT),
            }  # fmt: skip
            up(self.name)
            loads = [Load(self.name, Path(folder), self.seed, number) for number in range(self.clients)]
            for load in loads:
                load.start()
            try:
                self._kill_for(self.seconds)
                time.sleep(2.0)
            finally:
                for load in loads:
                    load.stop()
            for load in loads:
                load.judge()
                self.faults += load.faults
            self._end()
            return self._told(sum((load.seen for load in loads), Counter()))

    def _kill_for(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(self.random.expovariate(1.0) * 0.15)
            what = self.random.choices(list(KINDS), list(KINDS.values()))[0]
            try:
                getattr(self, "_kill_" + what.replace(" ", "_"))()
                self.kills[what] += 1
            except ProcessLookupError:
                continue

    def _status(self) -> dict[str, Any]:
        import symphony
        from symphony.model.errors import SymphonyError

        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                with symphony.connect(self.name) as client:
                    return client.status()
            except SymphonyError as error:
                if time.monotonic() > deadline:
                    raise SystemExit(f"seed {self.seed}: the engine did not come back: {error}") from error
                time.sleep(0.005)

    def _kill_conductor(self) -> None:
        pid = self._status()["pid"]
        begun = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        if self._status()["pid"] != pid:
            self.back_ms.append((time.monotonic() - begun) * 1e3)

    def _kill_conductor_stopped(self) -> None:
        os.kill(self._status()["pid"], signal.SIGSTOP)

    def _kill_player(self) -> None:
        players = [player["pid"] for player in self._status()["players"] if player["pid"]]
        if not players:
            raise ProcessLookupError
        os.kill(self.random.choice(players), signal.SIGKILL)

    def _kill_keeper(self) -> None:
        os.kill(self._status()["keeper_pid"], signal.SIGKILL)
        self._recover()

    def _kill_everything(self) -> None:
        status = self._status()
        pids = [status["keeper_pid"], status["pid"]]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                os.kill(pid, number)
        self._recover()

    def _recover(self) -> None:
        """Until it is up again: what is ending still holds the name for a moment."""
        from symphony.model.errors import EngineExists

        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return up(self.name, recover=True)
            except EngineExists:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _end(self) -> None:
        verified = ctl(self.name, "shm", "verify")
        if verified.returncode:
            told = [line for line in verified.stdout.splitlines() if not line.endswith(": whole")]
            self.faults.append("shm verify: " + "; ".join(told)[:2000])
        down = ctl(self.name, "down")
        if down.returncode or "left" in down.stderr:
            self.faults.append(f"down: {down.stderr}")
        deadline = time.monotonic() + PATIENCE_S
        while (left := processes(self.name) - {os.getpid()}) and time.monotonic() < deadline:
            time.sleep(0.05)
        if left:
            self.faults.append(f"processes left: {sorted(left)}")
        if shared(self.name):
            self.faults.append(f"segments left: {sorted(shared(self.name))}")

    def _told(self, seen: Counter) -> dict[str, Any]:
        back = sorted(self.back_ms)
        return {
            "seed": self.seed, "seconds": self.seconds, "kills": dict(self.kills), "kills_in_all": sum(self.kills.values()),
            "seen": dict(seen), "faults": self.faults,
            "conductor_back_ms": {"median": back[len(back) // 2], "max": back[-1]} if back else None,
        }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools.campaign", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--clients", type=int, default=2)
    given = parser.parse_args()
    print(f"seed {given.seed}: {given.seconds:g} s of kills under load", file=sys.stderr, flush=True)
    told = Campaign(given.seconds, given.seed, given.clients).run()
    print(json.dumps(told, indent=1))
    return 1 if told["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
