"""What the campaign plays: an effect that can be counted, and bytes that can be compared."""

import os

from symphony.extension import Extension

app = Extension()


@app.handler("mark")
def mark(path: str, token: str) -> str:
    """Append one line, whole: what is there twice was done twice."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, f"{token}\n".encode())
    finally:
        os.close(descriptor)
    return token


@app.handler("echo")
def echo(data: bytes) -> bytes:
    return bytes(data)


app.run()
