"""A whole service of its own for a benchmark: home, model, start, stop.

A service of another commit is its command line and the files that it writes for clients: no module of it is imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.client import AsyncClient
from shoal.client.connection import find_connection
from shoal.errors import ConfigurationError, Unavailable
from shoal.local.process import tail
from shoal.modelconfig.model import ResizeFilter
from shoal.modelstore import repository
from shoal.modelstore.making import build
from shoal.modelstore.making.published import PUBLISHED
from shoal.runtime import tether
from shoal.service.home import Home

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shoal.modelconfig.model import ModelConfig

_LOG = "up.log"
_STOP_SECONDS = 180
"""Longer than all parts may take, one after another."""
_COMMAND_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Part:
    """A process of a service, with all that it started."""

    name: str
    role: str
    pid: int


@dataclass(frozen=True, slots=True)
class Running:
    """A service that is ready."""

    home: Home
    start_seconds: float
    """From the command to ready."""
    supervisor: int
    """Its process."""
    parts: Sequence[Part]

    def client(self, *, streams: bool | None = None) -> AsyncClient:
        """One with connections of its own."""
        found = find_connection(None, None, self.home)
        return AsyncClient(found.target, api_key=found.api_key, streams=streams)


@contextmanager
def temporary_home(model: str, tree: Path | None = None) -> Iterator[tuple[Home, ModelConfig]]:
    """A home with one model in its store; weights are kept in the caller's own home for the next time.

    ``tree``: a checkout of another commit, whose service has to read the model, too. What it doesn't know is left out.
    """
    if model not in PUBLISHED:
        raise ConfigurationError(f"--model {model}: expected one of {', '.join(PUBLISHED)}")
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        home = Home(Path(folder))
        _add(home, model)
        if tree and _refusal(home, model, tree):
            _add(home, model, ResizeFilter.BILINEAR)  # which isn't written down: older commits know no other
            if refusal := _refusal(home, model, tree):
                raise ConfigurationError(f"--before {tree}: its service can't read {model}:\n{refusal}")
        yield home, repository.read_model(home.models, model)


@contextmanager
def running(home: Home, service: Path | None = None, tree: Path | None = None) -> Iterator[Running]:
    """Runs ``shoal up``, which ends with this process, however that ends.

    ``service`` is its service file; ``tree`` a checkout of another commit, run with this one's environment.
    """
    log = home.root / _LOG
    reader, writer = os.pipe()
    told = ("--service", str(service)) if service else ()
    command = _command("up", "--port", "0", "--ready-fd", str(writer), *told)
    started = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *command],
            env=_environment(home, tree),
            stdout=output,
            stderr=output,
            pass_fds=(writer,),
        )
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as answer:
            ready = answer.read(1)
        seconds = time.monotonic() - started
        if not ready:
            raise Unavailable(f"the service didn't start:\n{tail(log)}")
        yield Running(home, seconds, *_processes(home, tree))
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        finally:
            process.kill()
            process.wait()


def _add(home: Home, model: str, resize_filter: ResizeFilter | None = None) -> None:
    file, recipe = PUBLISHED[model](Home.default().cache)
    recipe = replace(recipe, resize_filter=resize_filter or recipe.resize_filter)
    build.add_model(home.models, file, recipe, force=True)


def _processes(home: Home, tree: Path | None) -> tuple[int, tuple[Part, ...]]:
    """The supervisor, and the parts, as ``shoal status`` of the same commit names them."""
    done = _run(home, tree, "status", "--json")
    if done.returncode:
        raise Unavailable(f"the service ended:\n{tail(home.root / _LOG)}")
    told = json.loads(done.stdout)
    return told["pid"], tuple(Part(part["name"], part["role"], part["pid"]) for part in told["parts"])


def _refusal(home: Home, model: str, tree: Path) -> str:
    """What the commit of ``tree`` has against the model; empty if nothing."""
    done = _run(home, tree, "model", "check", model)
    return (done.stdout + done.stderr).strip() or f"exit code {done.returncode}" if done.returncode else ""


def _run(home: Home, tree: Path | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(*arguments),
        env=_environment(home, tree),
        capture_output=True,
        text=True,
        check=False,
        timeout=_COMMAND_SECONDS,
    )


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "shoal", *arguments]


def _environment(home: Home, tree: Path | None) -> dict[str, str]:
    source = {"PYTHONPATH": str(tree.absolute() / "src")} if tree else {}
    return {**os.environ, "SHOAL_HOME": str(home.root), **source}
