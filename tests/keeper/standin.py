"""A Conductor that does what a test tells it: a real process under a real Keeper, with a socket to the test beside.

Started by the Keeper as `--module tests.keeper.standin`; STANDIN_BOSS names the test's socket. It does one thing at a
time and answers each; between two it answers the Keeper's pings.
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys

from symphony.keeper.link import KeeperLink
from symphony.model.errors import KeeperError

CHILD = "import os, socket; s = socket.socket(fileno=3); s.send(str(os.getpid()).encode()); s.recv(10)"


class StandIn:
    def __init__(self):
        self.link = KeeperLink.from_fd(3)
        self.boss = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.boss.connect(os.environ["STANDIN_BOSS"])
        self.heard = []
        self.deaf = False
        self.pings = 0
        self.ends = []

    def tell(self, **words):
        self.boss.send(json.dumps(words).encode())

    def run(self):
        self.tell(pid=os.getpid(), argv=sys.argv[1:])
        poller = select.poll()
        poller.register(self.link, select.POLLIN)
        poller.register(self.boss, select.POLLIN)
        while not self.link.gone:
            if self.deaf:
                poller.modify(self.link, 0)
            poller.poll(1000)
            if not self.deaf:
                self.listen()
            if select.select([self.boss], [], [], 0)[0]:
                self.obey()

    def listen(self):
        for message in self.link.receive():
            if message["op"] == "ping":
                self.link.pong(message["n"])
                self.pings += 1
            else:
                self.heard.append(message)

    def obey(self):
        data, fds, _, _ = socket.recv_fds(self.boss, 1 << 16, 16)
        if not data:
            os._exit(7)  # the test is gone
        order = json.loads(data)
        answer = getattr(self, "do_" + order.pop("do"))(fds, **order)
        for fd in fds:
            os.close(fd)
        self.tell(answer=answer)

    def do_spawn(self, fds, token, names=(), code=CHILD):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            deposit = dict(zip(names, fds, strict=True)) | {"control": ours.fileno()}
            argv = [sys.executable, "-S", "-c", code]
            self.link.spawn(token, argv, None, None, None, f"child{token}", theirs.fileno(), deposit)
        self.ends.append(ours)
        ours.settimeout(20)
        return int(ours.recv(100))

    def do_order_spawn(self, fds, token, names=()):
        """Without waiting for it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            argv = [sys.executable, "-S", "-c", CHILD]
            deposit = dict(zip(names, fds, strict=True)) | {"control": ours.fileno()}
            self.link.spawn(token, argv, None, None, None, f"child{token}", theirs.fileno(), deposit)

    def do_spawn_nothing(self, fds, token):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            deposit = {"control": ours.fileno()}
            self.link.spawn(token, ["/no/such/program"], None, None, None, "x", theirs.fileno(), deposit)

    def do_deposit(self, fds, token, names):
        self.link.deposit(token, dict(zip(names, fds, strict=True)))

    def do_forget(self, fds, token):
        self.link.forget(token)

    def do_ask_resume(self, fds):
        """Asked for, not waited for."""
        self.link._send({"op": "resume", "n": 99})

    def do_resume(self, fds, timeout=20.0):
        told = []
        for each in self.link.resume(timeout):
            inodes = {name: os.fstat(fd).st_ino for name, fd in each.descriptors.items()}
            told.append(
                {"token": each.token, "name": each.name, "pid": each.pid, "start": each.start, "alive": each.alive,
                 "status": each.status, "signal": each.signal, "last_words": each.last_words, "inodes": inodes}
            )  # fmt: skip
            each.close()
        return told

    def do_restarts(self, fds):
        return [self.link.restarts, self.link.last_restart_ns, self.link.last_death]

    def do_ready(self, fds, text=""):
        self.link.ready(text)

    def do_error(self, fds, text):
        self.link.error(text)

    def do_stand_by(self, fds):
        self.tell(answer=None)
        return self.link.stand_by()

    def do_heard(self, fds):
        self.listen()
        heard, self.heard = self.heard, []
        return heard

    def do_await(self, fds, op, token=None):
        """The message of that kind that has come or comes next."""
        while True:
            for message in self.heard:
                if message["op"] == op and token in (None, message.get("token")):
                    self.heard.remove(message)
                    return message
            if not select.select([self.link], [], [], 20)[0]:
                return None
            self.listen()

    def do_await_pings(self, fds, count):
        """Answer so many of them."""
        count += self.pings
        while self.pings < count and select.select([self.link], [], [], 20)[0]:
            self.listen()

    def do_status(self, fds):
        self.link.ask_status()
        return self.do_await(fds, "status")

    def do_be_deaf(self, fds):
        """Answer the Keeper no more, and read nothing of what it says."""
        self.deaf = True

    def do_spin(self, fds):
        """Never come back, and heed no signal that can be held off."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        self.tell(answer=None)
        while True:
            pass

    def do_hang_up(self, fds):
        """Close the socket to the Keeper and live on."""
        self.link._connection.close()
        self.tell(answer=None)
        while True:
            signal.pause()

    def do_stop(self, fds):
        self.link.stop(20.0, grace_s=0.5)
        self.tell(answer=None)
        os._exit(0)

    def do_exit(self, fds, status):
        self.tell(answer=None)
        sys.exit(status)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeeperError):
        StandIn().run()
