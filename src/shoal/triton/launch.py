"""How a ``tritonserver`` is started: ports, model repository, control mode, libraries, and what its version knows.

``Options.command()`` is what a supervisor runs: ``shoal serve triton …``, which finds the server and becomes it, so
that signals, exit code and parent are the server's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NoReturn

from shoal.errors import ConfigurationError
from shoal.runtime.gpus import VISIBLE
from shoal.runtime.ports import is_free

if TYPE_CHECKING:
    from shoal.runtime.endpoint import Endpoint
    from shoal.triton.installation import Installation

ControlMode = Literal["explicit", "none", "poll"]
"""``explicit``: models come and go over the control API. ``none``: all, at the start. ``poll``: as the folder says."""

_SHM = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory is
SHM_PREFIX: Final = "shoal-triton-"
"""Begins the names of the memory that the Python backend shares with its models."""
SHARED_MEMORY_FLAG: Final = "--allow-client-shm"
"""Known to servers from 2.68 on."""
_HELP_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Options:
    """What to start."""

    repository: Path
    """A Triton model repository: a model store."""
    listen: Endpoint
    """Where it answers the v2 gRPC protocol, the control API and gRPC health, which says SERVING once it is ready."""
    metrics: Endpoint | None = None
    """Where Prometheus finds ``/metrics``. None: nowhere."""
    control: ControlMode = "explicit"
    models: tuple[str, ...] = ()
    """Loaded at the start, with ``explicit``; the server then isn't ready before they are."""
    client_shared_memory: bool = True
    """Whether clients may register memory. False: refused, where the version can refuse it (2.68 and later)."""
    auto_complete: bool = False
    """Whether Triton fills in what a config.pbtxt leaves out: Shoal's leave nothing out, and each load of a
    Python model takes two seconds more."""
    server: str | None = None
    """The program's path. None: one on the PATH, else the fetched one."""
    packages: Path | None = None
    """Where a fetched server's Python backend finds packages first. None: ours."""
    gpus: str | None = None
    """The GPUs that it may use, as ``CUDA_VISIBLE_DEVICES`` names them. None: all that we may."""

    def command(self) -> tuple[str, ...]:
        """The command line that becomes this server."""
        # -P: the folder that a user starts us in is no place to import from.
        return (
            *(sys.executable, "-P", "-m", "shoal", "serve", "triton"),
            *("--repository", str(self.repository), "--listen", str(self.listen), "--control", self.control),
            *(("--metrics", str(self.metrics)) if self.metrics else ()),
            *(word for model in self.models for word in ("--model", model)),
            *(() if self.client_shared_memory else ("--no-client-shared-memory",)),
            *(("--auto-complete",) if self.auto_complete else ()),
            *(("--server", self.server) if self.server else ()),
            *(("--packages", str(self.packages)) if self.packages else ()),
            *(("--gpus", self.gpus) if self.gpus is not None else ()),
        )


def become(installation: Installation, options: Options) -> NoReturn:
    """Replaces this process by the server.

    Raises:
        ConfigurationError: a port is taken, there is no such repository, or the server can't be started.
    """
    for endpoint in (options.listen, options.metrics):
        # A port is shared without a word (SO_REUSEPORT), and a server left over would answer in place of ours.
        if endpoint is not None and not is_free(endpoint):
            raise ConfigurationError(f"can't listen on {endpoint}: another program does")
    if not options.repository.is_dir():
        raise ConfigurationError(f"{options.repository}: no such folder; it is to be the model repository")
    command = arguments(installation, options, known=_flags(installation), shm_prefix=_shm_prefix())
    folder = options.packages or installation.packages
    try:
        if folder is not None:
            # The Python backend's interpreter is isolated, so it minds no PYTHONPATH, but looks into its folder first.
            os.chdir(folder)
        os.execve(command[0], command, environment(installation, options.gpus))  # noqa: S606 - no shell is the point
    except OSError as error:
        raise ConfigurationError(f"{installation.server}: can't be started: {error}") from error


def arguments(installation: Installation, options: Options, *, known: str, shm_prefix: str) -> list[str]:
    """The server's command line; ``known`` is its ``--help``."""
    metrics = options.metrics
    listeners = (
        ["--allow-metrics=false"]
        if metrics is None
        else [f"--metrics-address={metrics.host}", f"--metrics-port={metrics.port}"]
    )
    shared = str(options.client_shared_memory).lower()
    return [
        str(installation.server),
        f"--model-repository={options.repository.absolute()}",
        f"--model-control-mode={options.control}",
        *(f"--load-model={model}" for model in options.models),
        f"--grpc-address={options.listen.host}",
        f"--grpc-port={options.listen.port}",
        "--allow-http=false",
        *listeners,
        *([f"--backend-directory={installation.backends}"] if installation.backends else []),
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
        # A model that can't be loaded is that model's trouble.
        "--exit-on-error=false",
        "--strict-readiness=false",
        *([] if options.auto_complete else ["--disable-auto-complete-config"]),
        *([f"{SHARED_MEMORY_FLAG}={shared}"] if SHARED_MEMORY_FLAG in known else []),
    ]


def environment(installation: Installation, gpus: str | None = None) -> dict[str, str]:
    """Ours, with the libraries that the server needs, and the GPUs that it is to use."""
    ours = dict(os.environ) if gpus is None else {**os.environ, VISIBLE: gpus}
    if installation.libraries is None:
        return ours
    paths = [str(installation.libraries), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {**ours, "LD_LIBRARY_PATH": ":".join(paths)}


def _flags(installation: Installation) -> str:
    """The server's ``--help``: versions differ."""
    try:
        done = subprocess.run(
            [installation.server, "--help"],
            env=environment(installation),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_HELP_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"{installation.server}: doesn't run: {error}") from error
    return done.stdout + done.stderr


def _shm_prefix() -> str:
    """A name for the memory that the Python backend shares with its models; what dead servers left is removed.

    A killed server leaves its memory behind. The name says whose it is: the namespace that the process number counts
    in, that number, and when the process started, since numbers come again.
    """
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    for left in _SHM.glob(f"{SHM_PREFIX}{namespace}-*"):
        pid, started = left.name.removeprefix(f"{SHM_PREFIX}{namespace}-").split("-")[:2]
        if _start_of(pid) != started:
            left.unlink(missing_ok=True)
    return f"{SHM_PREFIX}{namespace}-{os.getpid()}-{_start_of(str(os.getpid()))}-"


def _start_of(pid: str) -> str:
    """When a process started, in clock ticks since boot; empty where there is none (proc(5), the 22nd field)."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""
