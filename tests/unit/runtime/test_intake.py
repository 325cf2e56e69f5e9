from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shoal.client.connection import Connection
from shoal.errors import ConfigurationError
from shoal.modelconfig import pbtxt
from shoal.modelconfig.fault import FaultReport
from shoal.modelstore import labels
from shoal.pictures.objectstore import load_credentials
from shoal.runtime import intake
from shoal.service import spec
from shoal.service.api_keys import load_keys
from shoal.service.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Callable


def _pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**34)
    path.chmod(0o600)


def _labels(path: Path) -> None:
    try:
        labels.read(path)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error


def _config(path: Path) -> None:
    report = FaultReport("model")
    assert pbtxt.load(path, report) is None
    raise ConfigurationError(str(report.errors[0]))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_pipe, "is a pipe, not a file"),
        ("mkdir", "is a folder, not a file"),
        (_endless, "is a device, not a file"),
        (_socket, "No such device or address"),
        (_huge, "is larger than"),
    ],
)
@pytest.mark.parametrize(
    "read",
    [
        spec.load,
        load_keys,
        load_credentials,
        Topology.load,
        lambda path: Connection("here", "key", path).credentials(),
        _labels,
        _config,
    ],
    ids=["service", "keys", "credentials", "topology", "authorities", "labels", "config.pbtxt"],
)
def test_what_is_no_file_of_a_size_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], None] | str, reason: str, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "given"
    path.mkdir() if isinstance(make, str) else make(path)
    with pytest.raises(ConfigurationError, match=reason) as error:
        read(path)
    assert str(path) in str(error.value)


def test_a_file_of_the_largest_size_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100)
    assert intake.read(file, 100) == b"x" * 100
    with pytest.raises(OSError, match="larger than 99 bytes"):
        intake.read(file, 99)


def test_a_file_whose_size_says_that_it_is_too_large_is_left_unread(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    with intake.opened(path) as file:
        with pytest.raises(OSError, match="larger than 99 bytes"):
            intake.read_opened(file, path, 99)
        assert file.tell() == 0


def test_a_file_that_has_more_than_its_size_says_is_refused_too() -> None:
    status = Path("/proc/self/status")  # its size is told as 0
    with pytest.raises(OSError, match="larger than 10 bytes"):
        intake.read(status, 10)


def test_only_line_feeds_end_lines() -> None:
    others = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei\rj"
    assert intake.lines(f"{others}\r\nsecond\n\nfourth\n") == [others, "second", "", "fourth"]
    assert intake.lines("no end") == ["no end"]
    assert intake.lines("") == []


def test_another_encoding_is_named_with_its_place_and_without_its_bytes() -> None:
    content = "fine\nZürich\n".encode("latin-1")
    with pytest.raises(UnicodeDecodeError) as error:
        content.decode()
    assert intake.not_utf8(error.value) == "not UTF-8 from byte 6 (line 2) on"


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "[" * 200_000 + "]" * 200_000])
def test_json_nested_too_deep_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"deep|Expecting"):
        intake.parse_json(text)


def test_keys_nested_too_deep_are_a_fault_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text('{"keys": ' + "[" * 100_000 + "]" * 100_000 + "}")
    file.chmod(0o600)
    with pytest.raises(ConfigurationError, match=r"keys\.json: not JSON"):
        load_keys(file)


def test_a_path_of_a_service_file_may_begin_with_a_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert str(intake.expanded("~/keys.json")) == "/home/me/keys.json"
    with pytest.raises(ConfigurationError, match="~no-such-user is no user of this machine"):
        intake.expanded("~no-such-user/keys.json")
    with pytest.raises(ConfigurationError, match="holds a NUL"):
        intake.expanded("a\0b")
    with pytest.raises(OSError, match="holds a NUL"):
        intake.read(Path("a\0b"))
