"""A whole service of its own for a benchmark: home, model, start, stop."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoal import tether
from shoal.errors import ConfigurationError, Unavailable
from shoal.home import Home
from shoal.local import state
from shoal.local.process import tail
from shoal.modelstore import build, repository
from shoal.modelstore.published import PUBLISHED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoal.modelstore.config import ModelConfig

_LOG = "up.log"
_STOP_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Running:
    """A service that is ready."""

    home: Home
    start_seconds: float
    """From the command to ready."""

    @property
    def state(self) -> state.ServiceState:
        """Its parts."""
        found = state.running(self.home)
        if found is None:
            raise Unavailable(f"the service ended:\n{tail(self.home.root / _LOG)}")
        return found


@contextmanager
def temporary_home(model: str) -> Iterator[tuple[Home, ModelConfig]]:
    """A home with one model in its store; weights are kept in the caller's own home for the next time."""
    if model not in PUBLISHED:
        raise ConfigurationError(f"--model {model}: expected one of {', '.join(PUBLISHED)}")
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        home = Home(Path(folder))
        build.add_model(home.models, *PUBLISHED[model](Home.default().cache))
        yield home, repository.read_model(home.models, model)


@contextmanager
def running(home: Home, service: Path | None = None, tree: Path | None = None) -> Iterator[Running]:
    """Runs ``shoal up``, which ends with this process, however that ends.

    ``service`` is its service file; ``tree`` a checkout of another commit, run with this one's environment.
    """
    log = home.root / _LOG
    reader, writer = os.pipe()
    command = [sys.executable, "-P", "-m", "shoal", "up", "--port", "0", "--ready-fd", str(writer)]
    command += ["--service", str(service)] if service else []
    started = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *command],
            env={**os.environ, "SHOAL_HOME": str(home.root), **({"PYTHONPATH": str(tree / "src")} if tree else {})},
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
        yield Running(home, seconds)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        finally:
            process.kill()
            process.wait()
