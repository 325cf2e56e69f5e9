from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from shoal.client.connection import find_connection
from shoal.errors import ConfigurationError
from shoal.service.home import Home

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "client.json").write_text(json.dumps({"target": "127.0.0.1:8080", "api_key": "local"}))
    return Home(tmp_path)


@pytest.mark.parametrize(
    ("target", "key", "expected"),
    [
        (None, None, ("127.0.0.1:8080", "local")),
        (None, "mine", ("127.0.0.1:8080", "mine")),
        ("127.0.0.1:8080", None, ("127.0.0.1:8080", "local")),
        ("far:1", "mine", ("far:1", "mine")),
    ],
)
def test_what_is_said_wins(home: Home, target: str | None, key: str | None, expected: tuple[str, str]) -> None:
    found = find_connection(target, key, home)
    assert (found.target, found.api_key) == expected
    assert expected[1] not in repr(found)


def test_the_local_key_never_goes_elsewhere(home: Home) -> None:
    with pytest.raises(ConfigurationError, match="no API key for far:1"):
        find_connection("far:1", None, home)


@pytest.mark.parametrize(("target", "missing"), [(None, "no service"), ("far:1", "no API key")])
def test_nothing_to_go_by(tmp_path: Path, target: str | None, missing: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{missing}: .*shoal up"):
        find_connection(target, None, Home(tmp_path))


@pytest.mark.parametrize("content", ["", "[]", '{"target": "a"}'])
def test_a_broken_file_is_named(home: Home, content: str) -> None:
    (home.run / "client.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"client\.json"):
        find_connection(None, None, home)


def test_a_token_goes_in_the_place_of_the_key(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a.b.c\n")
    for target in (None, "127.0.0.1:8080", "far:1"):
        found = find_connection(target, None, home, token_file=file)
        assert (found.target, found.api_key) == (target or "127.0.0.1:8080", None)
        token = found.options()["token"]
        assert token
        assert token() == "a.b.c"
    file.write_text("d.e.f")
    assert token() == "d.e.f", "it is read anew"


def test_a_token_that_is_one_too_many_or_not_there(home: Home, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="give one of them"):
        find_connection("far:1", "key", home, token_file=tmp_path / "token")
    with pytest.raises(ConfigurationError, match="token: the token can't be read: No such file"):
        find_connection("far:1", None, home, token_file=tmp_path / "token")
    (tmp_path / "token").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="it is no text"):
        find_connection("far:1", None, home, token_file=tmp_path / "token")
