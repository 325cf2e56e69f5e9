from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shoal.cli import main
from shoal.local import state
from shoal.runtime.priority import Priority
from shoal.service.api_keys import load_keys
from shoal.service.home import Home

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    return Home(tmp_path)


def shoal(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(["keys", *arguments])
    return ended.value.code


def test_a_key_is_printed_once(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert shoal("create", "--owner", "alice", "--models", "resnet*,yolo", "--requests-per-second", "2.5") == 0
    (key,) = load_keys(home.keys)
    assert capsys.readouterr().out.strip() == key.key
    assert (key.owner, key.models, key.requests_per_second) == ("alice", ("resnet*", "yolo"), 2.5)
    assert shoal("list") == 0
    told = capsys.readouterr()
    assert key.id in told.out
    assert key.key not in told.out + told.err


def test_a_pattern_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    shoal("create", "--owner", "alice", "--models", "[rs]esnet[bold],x[/y]")
    assert shoal("list") == 0
    assert "[rs]esnet[bold], x[/y]" in capsys.readouterr().out


def test_a_revoked_key_is_gone(home: Home) -> None:
    shoal("create", "--owner", "alice")
    (key,) = load_keys(home.keys)
    assert shoal("revoke", key.id) == 0
    assert not len(load_keys(home.keys))
    assert shoal("revoke", key.id) == 2


def test_what_is_wrong_is_an_error_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert shoal("create", "--owner", "Alice!") == 2
    assert "owner" in capsys.readouterr().err


def test_a_bulk_key_is_made_and_shown_as_one(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert shoal("create", "--owner", "night", "--priority", "bulk") == 0
    (key,) = load_keys(home.keys)
    assert key.priority is Priority.BULK
    capsys.readouterr()
    assert shoal("list") == 0
    assert capsys.readouterr().out.split()[-1] == "bulk"
    assert shoal("create", "--owner", "night", "--priority", "urgent") == 2


def test_the_local_services_key_is_printed_alone(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert shoal("local") == 2
    assert "'shoal up' starts one" in capsys.readouterr().err
    home.run.mkdir()
    state.save_client(home, "127.0.0.1:1", "the-key-of-this-machine")
    assert shoal("local") == 0
    assert capsys.readouterr().out == "the-key-of-this-machine\n"
