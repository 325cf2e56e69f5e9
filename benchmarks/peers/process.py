"""A peer's server as a process of ours: started, watched, and gone with all its children."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.peers import warden
from shoal.errors import Unavailable
from shoal.local.process import tail

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_STOP_SECONDS = warden.GRACE_SECONDS + 10


@dataclass(frozen=True, slots=True)
class Server:
    """A server that was started."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Of its warden: everything of the server is below it."""
        return self.process.pid

    def check(self) -> None:
        """Raises Unavailable if it ended."""
        if self.process.poll() is not None:
            raise Unavailable(f"the server ended with exit code {self.process.returncode}:\n{tail(self.log)}")


@contextmanager
def started(command: Sequence[str], variables: Mapping[str, str], log: Path) -> Iterator[Server]:
    """Runs ``command`` under a warden, in a session of its own, so that a Ctrl-C is ours alone to handle."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", warden.__file__, *command],
            env=dict(variables),
            cwd=log.parent,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Server(process, log)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_STOP_SECONDS)
        finally:
            process.kill()
            process.wait()
