"""One part as a process: started with a log of its own, asked whether it is ready, stopped for certain."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from shoal.errors import ConfigurationError, ShoalError, Unavailable
from shoal.local import turnover
from shoal.local.probe import until_ready
from shoal.runtime import tether

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.local.plan import Part

READY_SECONDS = 120.0
"""A part that isn't ready by then has failed; compiling a large model for the first time takes long."""

DRAIN_SECONDS = 35.0
"""What a part may take to end before it is killed; a little more than the parts give to what they have in flight."""

_LARGEST_LOG = turnover.LARGEST_BYTES
_TAIL_LINES = 15
_USAGE = 2


class Child(Protocol):
    """A running part, as its keeper sees it."""

    @property
    def pid(self) -> int:
        """The process."""
        ...

    async def ready(self) -> None:
        """Returns once it serves. Raises ShoalError if it ends or takes too long."""
        ...

    async def wait(self) -> int:
        """Its exit status; negative for a signal."""
        ...

    async def stop(self) -> None:
        """Asks it to drain, and kills it when that takes too long. Returns once nothing of it is left."""
        ...

    def kill(self) -> None:
        """Ends it, and all it started, at once."""
        ...


class LocalProcess:
    """A child in a session of its own, so that the terminal's Ctrl-C reaches the supervisor alone."""

    def __init__(self, part: Part, log: Path, process: asyncio.subprocess.Process) -> None:
        self._part = part
        self._log = log
        self._process = process

    @classmethod
    async def start(cls, part: Part, logs: Path) -> LocalProcess:
        """Starts ``part``; what it prints goes to ``<logs>/<name>.log``."""
        log = logs / f"{part.name}.log"
        try:
            rotate(log)
            with log.open("ab") as output:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", tether.__file__, str(os.getpid())),
                    *part.command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **part.environment},
                    start_new_session=True,
                )
        except OSError as error:
            raise Unavailable(f"{part.name} can't be started: {error}") from error
        return cls(part, log, process)

    @property
    def pid(self) -> int:
        """The process, which leads a group of the same number."""
        return self._process.pid

    async def ready(self) -> None:
        """Returns once it serves. Raises ShoalError, with its log's end, if it ends or takes ``READY_SECONDS``."""
        ended = asyncio.ensure_future(self._process.wait())
        probe = asyncio.ensure_future(until_ready(self._part.ready, self._part.listen))
        try:
            await asyncio.wait({ended, probe}, timeout=READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise self._failed(f"ended with {describe_exit(ended.result())} before it was ready", ended.result())
            if not probe.done():
                raise self._failed(f"wasn't ready after {READY_SECONDS:.0f} s")
            probe.result()
        finally:
            ended.cancel()
            probe.cancel()

    async def wait(self) -> int:
        """Its exit status; negative for a signal. What it started ends with it."""
        code = await self._process.wait()
        self.kill()  # what it started and left behind
        return code

    async def stop(self) -> None:
        """Sends SIGTERM, and kills it after ``DRAIN_SECONDS``. Returns once nothing of it is left."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            self.kill()
        await self._process.wait()

    def kill(self) -> None:
        """Sends SIGKILL to it and all it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _failed(self, what: str, code: int = 1) -> ShoalError:
        kind = ConfigurationError if code == _USAGE else Unavailable
        return kind(f"{self._part.name} {what}; the end of {self._log}:\n{tail(self._log)}")


def rotate(log: Path) -> None:
    """Makes room for a log that nobody writes to yet: the folder exists, and a large file becomes ``<name>.1``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        if log.stat().st_size > _LARGEST_LOG:
            turnover.age(log, log)


def tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """The last lines of a log, indented."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        text = ""
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (it says nothing)"


def describe_exit(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
