"""Runs a server so that nothing of it stays behind: ``python warden.py COMMAND…``.

Some servers start daemons that leave their parent. A subreaper (prctl(2), PR_SET_CHILD_SUBREAPER) becomes the parent of
all such orphans, so that they can be found: for measuring their CPU time, and to end them. The standard input is a pipe
whose other end the harness holds: when it closes, because the harness wants it or because it died, the server is asked
to stop, and whatever is left after that is killed. Needs the standard library alone.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 10.0
_SWEEP_SECONDS = 0.05


def main() -> int:
    """Answers with the server's exit code, 0 if it was asked to stop."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    try:
        ended = _wait(server)
        return server.wait() if ended else 0
    finally:
        _stop(server)


def _leave(_number: int, _frame: object) -> None:
    sys.exit(0)


def _wait(server: subprocess.Popen[bytes]) -> bool:
    """Until the pipe closes or the server ends; whether the latter."""
    handle = os.pidfd_open(server.pid)
    try:
        ready, _, _ = select.select([sys.stdin.fileno(), handle], [], [])
        return handle in ready
    finally:
        os.close(handle)


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(GRACE_SECONDS)
    while left := descendants(os.getpid()):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reap()
        time.sleep(_SWEEP_SECONDS)


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def descendants(root: int) -> list[int]:
    """All living processes below ``root``."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and (parent := _parent(folder)) is not None:
            children.setdefault(parent, []).append(int(folder.name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _parent(folder: Path) -> int | None:
    with suppress(OSError):  # it has ended meanwhile
        # The name in brackets may hold spaces and brackets; state and parent follow the last one.
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    return None


if __name__ == "__main__":
    sys.exit(main())
