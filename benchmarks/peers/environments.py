"""An environment of its own for each peer, from the package index."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.files import ROOT
from shoal.errors import ConfigurationError

FOLDER = Path(__file__).parent / ".environments"
_SHARED = ("numpy", "opencv-python-headless", "openvino", "pillow", "simplejpeg", "uvloop")
"""What the work needs, at the versions that Shoal is tested with."""
_INSTALL_SECONDS = 1200
_LIST = (
    "import json, importlib.metadata as m; print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
)


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment."""

    name: str
    requirements: tuple[str, ...]
    """The peer's own, with versions."""
    overrides: tuple[str, ...] = ()
    """What must be of another version than the shared packages ask for."""

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return FOLDER / self.name / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        """Where its packages are; the interpreter is of this process's version."""
        return FOLDER / self.name / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"

    def prepare(self) -> None:
        """Makes it, unless it is there with these very requirements."""
        wanted = self._wanted()
        if self._stamp().get("requirements") == [*wanted, *self.overrides]:
            return
        folder = FOLDER / self.name
        shutil.rmtree(folder, ignore_errors=True)
        _run(self.name, sys.executable, "-m", "venv", str(folder))
        install = (str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        _run(self.name, *install, *wanted)
        if self.overrides:
            _run(self.name, *install, "--no-deps", *self.overrides)
        versions = json.loads(_run(self.name, str(self.python), "-c", _LIST))
        told = {"requirements": [*wanted, *self.overrides], "versions": versions}
        self._stamp_file.write_text(json.dumps(told), encoding="utf-8")

    def versions(self) -> dict[str, str]:
        """Of the packages that matter to a reader: the peer's own, and the shared ones."""
        names = [_name(requirement) for requirement in self._wanted()]
        found = self._stamp()["versions"]
        return {name: found[name] for name in names if name in found}

    def variables(self) -> dict[str, str]:
        """For a server: its modules and Shoal's source on the path, the environment's programs first."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
            "PATH": f"{self.python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "VIRTUAL_ENV": str(FOLDER / self.name),
        }

    def _wanted(self) -> list[str]:
        return [*self.requirements, *_pinned((ROOT / "constraints.txt").read_text(encoding="utf-8"))]

    def _stamp(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self._stamp_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return found

    @property
    def _stamp_file(self) -> Path:
        return FOLDER / self.name / "prepared.json"


def _pinned(constraints: str) -> list[str]:
    """Without the hashes: what else goes into these environments has none."""
    pins = [line.split()[0] for line in constraints.splitlines() if re.match(r"[a-z0-9]", line)]
    return [pin for pin in pins if _name(pin) in _SHARED]


def _name(requirement: str) -> str:
    return re.split(r"[\[=<>~ ]", requirement, maxsplit=1)[0].lower()


def _run(name: str, *command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_INSTALL_SECONDS)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ConfigurationError(f"the environment of {name!r} can't be made: {last}") from error
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"the environment of {name!r} wasn't made in {_INSTALL_SECONDS} s") from None
    return done.stdout
