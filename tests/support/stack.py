"""The whole service, as ``shoal up`` runs it, in a home and on a port of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.local import state
from shoal.runtime import tether
from shoal.runtime.watch import changes
from shoal.service.home import Home
from support import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_STOP_SECONDS = 60
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Stack:
    """A running service."""

    home: Home
    target: str
    """``HOST:PORT``."""
    api_key: str
    """Of the owner ``local``."""
    process: subprocess.Popen[bytes]
    """The supervisor."""

    def shoal(self, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs the command line against it."""
        return shoal(self.home.root, *arguments, check=check)

    def state(self) -> state.ServiceState:
        """What runs at this moment."""
        found = state.running(self.home)
        assert found is not None, "the stack is down"
        return found

    def part(self, name: str) -> state.PartState:
        """One part, such as ``router`` or ``worker-default-1``."""
        return next(part for part in self.state().parts if part.name == name)

    async def restarted(self, before: state.PartState) -> state.PartState:
        """Waits until a part is ready again after a restart."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            async for _ in changes(self.home.run):
                part = self.part(before.name)
                if part.restarts > before.restarts and part.state == "ready":
                    return part
        raise AssertionError

    async def metric(self, part: str, sample: str, **labels: str) -> float:
        """A sample of a part's metrics, such as ``shoal_worker_fetch_seconds_count``, over all its other labels."""
        url = self.part(part).metrics
        assert url
        return await metrics.sample(url, sample, **labels)

    async def until_metric(self, part: str, sample: str, value: float, **labels: str) -> None:
        """Waits until a sample has a value."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while await self.metric(part, sample, **labels) != value:  # of another process
                await asyncio.sleep(0.1)  # a router's page takes 10 ms of a core to write


def shoal(root: Path, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs ``shoal`` with its home at ``root``."""
    done = subprocess.run(
        [sys.executable, "-m", "shoal", *map(str, arguments)],
        env={**os.environ, "SHOAL_HOME": str(root), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, f"shoal {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@contextmanager
def running_stack(root: Path, *, models: Callable[[Path], object], service: str = "") -> Iterator[Stack]:
    """Starts the whole service and stops it at the end, even if the tests' process is killed.

    Args:
        root: the home's folder; it may exist, with whatever a test put there.
        models: adds models to the store at the path that it is given.
        service: the service file's text.
    """
    home = Home(root)
    models(home.models)
    root.mkdir(parents=True, exist_ok=True)
    file = root / "shoal.yaml"
    file.write_text(service)
    process, ready = _start(root, file)
    try:
        assert ready, (root / "up.log").read_text()
        client = json.loads(home.client.read_text())
        yield Stack(home, client["target"], client["api_key"], process)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        finally:
            process.kill()


def _start(root: Path, service: Path) -> tuple[subprocess.Popen[bytes], bool]:
    """The supervisor and whether it got ready."""
    reader, writer = os.pipe()
    command = ["-m", "shoal", "up", "--service", str(service), "--port", "0", "--ready-fd", str(writer)]
    with (root / "up.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-S", tether.__file__, str(os.getpid()), sys.executable, *command],
            env={**os.environ, "SHOAL_HOME": str(root)},
            stdout=log,
            stderr=log,
            pass_fds=(writer,),
        )
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        return process, bool(answer.read(1))
