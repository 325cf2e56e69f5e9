"""A Triton out of the unpacked nvidia-pytriton wheel, for machines that can't fetch one."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from shoal.triton.installation import PYTHON, WHEEL_LIBRARIES

if TYPE_CHECKING:
    from pathlib import Path


def use_unpacked(folder: Path, scratch: Path) -> None:
    """Makes a server that is found of ``folder``, the content of the nvidia-pytriton wheel.

    Its Python backend gets the stub of this Python.
    """
    tree = folder.absolute() / "pytriton" / "tritonserver"
    stub = tree / "backends" / "python" / "triton_python_backend_stub"
    if not (folder / WHEEL_LIBRARIES).is_dir():
        raise SystemExit(f"--server {folder}: expected pytriton/ and {WHEEL_LIBRARIES}/ in it, the wheel's content")
    if not stub.is_file():
        shutil.copy(tree / "python_backend_stubs" / PYTHON / stub.name, stub)
    for program in (stub, tree / "bin" / "tritonserver"):
        program.chmod(0o755)
    found = scratch / "triton"
    found.mkdir()
    (found / f"py{PYTHON}").symlink_to(folder.absolute())
    os.environ["SHOAL_TRITON"] = str(found)
