"""Which ``tritonserver`` to run: a configured one, else one on the PATH, else what ``shoal triton fetch`` brought."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from shoal.errors import ConfigurationError

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
WHEEL_LIBRARIES = "nvidia_pytriton.libs"
_BACKENDS = Path("/opt/tritonserver/backends")
"""Where a server looks that isn't told."""
_SERVER_IN_WHEEL = Path("pytriton/tritonserver/bin/tritonserver")


@dataclass(frozen=True, slots=True)
class Installation:
    """A server and what it needs to find."""

    server: Path
    backends: Path | None
    """None: where the server itself looks."""
    libraries: Path | None = None
    """Where libpython is, for a fetched server, whose Python backend runs on our Python. None: its own affair."""
    packages: Path | None = None
    """Where that Python finds our packages."""

    @classmethod
    def of(cls, server: Path) -> Installation:
        """What belongs to ``server``: its backends lie beside it, in NVIDIA's containers as in the wheel."""
        backends = server.parent.parent / "backends"
        found = backends if backends.is_dir() else None
        if not (server.parents[3] / WHEEL_LIBRARIES).is_dir():
            return cls(server, found)
        return cls(server, found, libpython_folder(), Path(sysconfig.get_path("purelib")))

    def has_backend(self, name: str) -> bool:
        """Whether it runs models of a backend, such as ``onnxruntime``."""
        return ((self.backends or _BACKENDS) / name).is_dir()


def default_folder() -> Path:
    """Where fetched servers are: ``$SHOAL_TRITON``, else ``.triton`` in the current folder."""
    return Path(os.environ.get("SHOAL_TRITON") or ".triton").absolute()


def fetched_server(folder: Path) -> Path:
    """Where a server for this Python lies in ``folder``, once it is fetched."""
    return folder / f"py{PYTHON}" / _SERVER_IN_WHEEL


def find(configured: str | None = None, folder: Path | None = None) -> Installation:
    """The server to run.

    Args:
        configured: The program's path. None: one on the PATH, else the fetched one.
        folder: Where fetched servers are. None: ``default_folder()``.

    Raises:
        ConfigurationError: there is none; says how to get one.
    """
    if configured is not None:
        server = Path(configured).expanduser().absolute()
        if not os.access(server, os.X_OK) or server.is_dir():
            raise ConfigurationError(f"{configured}: not a program; triton_server names the tritonserver to start")
        return Installation.of(server)
    fetched = fetched_server(folder or default_folder())
    server = Path(shutil.which("tritonserver") or fetched)
    if not server.is_file():
        raise ConfigurationError(
            f"no tritonserver is on the PATH or at {fetched}: `shoal triton fetch` (in a clone: `make triton`) brings "
            "one, or name yours with triton_server in the service file"
        )
    return Installation.of(server)


def libpython_folder() -> Path:
    """Where the shared library of this Python is.

    Raises:
        ConfigurationError: it has none.
    """
    folder, name = (sysconfig.get_config_var(key) or "" for key in ("LIBDIR", "INSTSONAME"))
    if not name.endswith((".so.1.0", ".so")) or not (Path(folder) / name).is_file():
        raise ConfigurationError(
            f"{sys.executable}: this Python comes without a shared libpython, which Triton's Python backend needs; "
            f"on Debian and Ubuntu the package libpython{PYTHON} brings it"
        )
    return Path(folder)
