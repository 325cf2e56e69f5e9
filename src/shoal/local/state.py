"""What a running service tells other commands: a lock that it holds for life, and a file that it keeps current.

Whether a service runs is the lock's answer, never the file's, so a file that a dead supervisor left misleads no one.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from shoal.errors import ConfigurationError
from shoal.runtime import intake, trust
from shoal.runtime.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shoal.service.home import Home

_MILLISECONDS = 1000


class PartState(BaseModel):
    """One part, as ``shoal status`` shows it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    role: str
    state: str
    pid: int | None
    restarts: int
    listen: str
    metrics: str | None
    group: str = ""
    """The pool of a worker or a Triton, the group of a batcher."""
    log: str


class ServiceState(BaseModel):
    """The running service."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    pid: int
    """The supervisor."""
    ready: bool
    """Every part is."""
    target: str
    """What clients call: ``HOST:PORT``."""
    console: str | None = None
    """The console's page; None: there is none."""
    store_url: str | None
    """The managed object store's S3 API."""
    models: str
    """The model store's folder."""
    logs: str
    parts: tuple[PartState, ...]

    def save(self, home: Home) -> None:
        """Replaces the state file in one step."""
        replace_file(_state_file(home), self.model_dump_json(indent=2))


def running(home: Home) -> ServiceState | None:
    """The service that runs in ``home``, or None."""
    if owner(home) is None:
        return None
    with suppress(OSError, ValidationError):
        return ServiceState.model_validate_json(intake.read(_state_file(home)))
    return None


def owner(home: Home) -> int | None:
    """The supervisor's process if one runs in ``home``, or None.

    Raises:
        ConfigurationError: somebody else may say so: a signal to that process could reach any of ours.
    """
    try:
        with intake.opened(_lock_file(home)) as file:
            trust.require_ours(_lock_file(home))
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        said = intake.read(_lock_file(home)).strip()
        return int(said) or None if said.isdigit() else None
    return None


@contextmanager
def exclusive(home: Home) -> Iterator[None]:
    """Makes this process the home's supervisor; the kernel gives the lock up with the process, however it ends.

    Raises:
        ConfigurationError: another one runs there, or somebody else can write to it.
    """
    trust.require_ours(home.run)
    home.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _lock_file(home).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise already_running(home) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            for left in (_state_file(home), home.client):
                left.unlink(missing_ok=True)


def already_running(home: Home) -> ConfigurationError:
    """What to say to a second ``shoal up``."""
    return ConfigurationError(
        f"a service runs in {home.root} already (process {owner(home)}); 'shoal status' shows it, "
        "'shoal down' stops it, and another SHOAL_HOME holds another one"
    )


def terminate(pid: int, timeout_seconds: float) -> bool:
    """Sends SIGTERM and waits for the process's end; False when that took too long."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        waiter = select.poll()
        waiter.register(descriptor, select.POLLIN)
        return bool(waiter.poll(timeout_seconds * _MILLISECONDS))
    finally:
        os.close(descriptor)


def save_client(home: Home, target: str, api_key: str, ca_file: Path | None = None) -> None:
    """Writes the client file; ``ca_file`` holds the authorities to trust, where it isn't the public ones."""
    trust = {"ca_file": str(ca_file)} if ca_file else {}
    replace_file(home.client, json.dumps({"target": target, "api_key": api_key, **trust}))


def _state_file(home: Home) -> Path:
    return home.run / "state.json"


def _lock_file(home: Home) -> Path:
    return home.run / "lock"
