"""Handlers for the tests of faults: they give back, grow, fail, die and do not listen, as told."""

import os
import secrets
import signal
import subprocess
import time

from symphony.extension import Extension, context

app = Extension()


def _note(folder):
    """Leave a file whose name says that a step began; how many have."""
    if not folder:
        return 0
    path = os.path.join(folder, f"{os.getpid()}.{secrets.token_hex(6)}")
    open(path + ".new", "w").close()
    os.rename(path + ".new", path)
    return len([name for name in os.listdir(folder) if not name.endswith(".new")])


@app.handler("echo")
def echo(data):
    return data


@app.handler("words")
def words(count: int, text="w"):
    return [f"{text}{number}" for number in range(count)]


@app.handler("sized")
def sized(size: int):
    return bytes(range(256)) * (size // 256) + bytes(range(size % 256))


@app.handler("several")
def several(sizes):
    return [bytes([number & 255]) * size for number, size in enumerate(sizes)]


@app.handler("measure")
def measure(items):
    if isinstance(items, bytes | str):
        return {"count": 1, "bytes": len(items), "first": str(items[:20])}
    found = [item if isinstance(item, bytes | str) else bytes(item) for item in items]
    texts = [item for item in found if isinstance(item, str)]
    return {
        "count": len(found),
        "bytes": sum(map(len, found)),
        "first": texts[0] if texts else None,
        "last": texts[-1] if texts else None,
    }


@app.handler("pair")
def pair(text: str, size: int):
    return {"text": text, "data": bytes(size), "length": size}


@app.handler("no_list")
def no_list():
    return "only a text"


@app.handler("fail")
def fail(folder: str, times: int):
    began = _note(folder)
    if began <= times:
        raise ValueError(f"attempt {began} fails on purpose")
    return {"began": began, "attempt": context.attempt}


@app.handler("die")
def die(folder: str, times: int, data=""):
    began = _note(folder)
    if began <= times:
        print("these are my last words", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return {"began": began, "pid": os.getpid()}


@app.handler("nap")
def nap(seconds: float, folder=""):
    _note(folder)
    time.sleep(seconds)
    return os.getpid()


@app.handler("heed")
def heed(folder=""):
    _note(folder)
    while True:
        context.check()
        time.sleep(0.01)


@app.handler("deaf")
def deaf(folder="", data=""):
    _note(folder)
    while True:
        time.sleep(3600)


@app.handler("whom")
def whom():
    return os.getpid()


@app.handler("offspring")
def offspring(folder: str):
    """Start a process that would outlive this one, and stay."""
    child = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    with open(os.path.join(folder, "child.new"), "w") as file:
        file.write(str(child.pid))
    os.rename(os.path.join(folder, "child.new"), os.path.join(folder, "child"))
    while True:
        time.sleep(3600)


app.run()
