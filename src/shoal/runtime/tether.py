"""Runs a command that can't outlive its parent: ``python tether.py PARENT_PID COMMAND…``.

The kernel kills it with the supervisor, even one that was killed itself (prctl(2), PR_SET_PDEATHSIG, survives exec).
A wrapper of its own rather than a ``preexec_fn``, which may deadlock in a process with threads. Started by path and
without site packages, it costs about 15 ms.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ties this process to its parent, then becomes the command, which may open as many files as anybody here."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems say more than they allow
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the tie
        sys.exit(1)
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
