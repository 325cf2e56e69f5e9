from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from shoal.cli import keys as keys_command
from shoal.cli.up import up
from shoal.client.connection import find_connection
from shoal.errors import ConfigurationError
from shoal.local import state
from shoal.runtime import trust
from shoal.service.home import Home

if TYPE_CHECKING:
    from pathlib import Path

STRANGER = 65_534
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A folder that we work in, with a service's files in it."""
    root = tmp_path / "work" / ".shoal"
    (root / "run").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("SHOAL_HOME", str(root))
    monkeypatch.delenv("SUDO_UID", raising=False)
    (root / "run" / "client.json").write_text(json.dumps({"target": "here:1", "api_key": "local"}))
    (root / "run" / "lock").write_text("1")
    return Home(root)


def _is_used(home: Home) -> bool:
    """Whether each command that goes by the home's files does so."""
    used = []
    for ask in (
        lambda: find_connection(None, "mine", home),
        lambda: find_connection(None, None, home),
        lambda: state.owner(home),
        lambda: state.running(home),
    ):
        try:
            ask()
        except ConfigurationError as error:
            used.append("is not trusted" not in str(error))
        else:
            used.append(True)
    assert len(set(used)) == 1
    return used[0]


def test_what_we_made_is_used(home: Home) -> None:
    assert _is_used(home)


@only_root
@pytest.mark.parametrize("place", ["run", ".", ".."])
def test_what_lies_in_somebody_elses_folder_is_not(home: Home, place: str) -> None:
    os.chown(home.root / place, STRANGER, STRANGER)
    assert not _is_used(home)
    with pytest.raises(
        ConfigurationError, match=r"belongs to user .*65534.*SHOAL_HOME.*--target.*SHOAL_TRUST_UID=65534"
    ):
        up()


@only_root
def test_what_somebody_else_wrote_is_not(home: Home) -> None:
    for file in (home.client, home.run / "lock"):
        os.chown(file, STRANGER, STRANGER)
    assert not _is_used(home)


@pytest.mark.parametrize("place", ["run", ".", ".."])
@pytest.mark.parametrize("mode", [0o777, 0o702])
def test_what_others_can_write_to_is_not(home: Home, place: str, mode: int) -> None:
    (home.root / place).chmod(mode)
    assert not _is_used(home)


def test_a_file_that_others_can_write_to_is_not(home: Home) -> None:
    for file in (home.client, home.run / "lock"):
        file.chmod(0o606)
    assert not _is_used(home)


def test_a_sticky_folder_above_is_no_fault(home: Home) -> None:
    (home.root / "..").chmod(0o1777)
    assert _is_used(home)


@only_root
def test_a_link_is_as_good_as_its_owner_and_what_it_leads_to(home: Home, tmp_path: Path) -> None:
    link = tmp_path / "work" / "link"
    link.symlink_to(home.root)
    assert _is_used(Home(link))
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    assert not _is_used(Home(link))
    os.chown(link, 0, 0, follow_symlinks=False)
    os.chown(home.root, STRANGER, STRANGER)
    assert not _is_used(Home(link))


@only_root
@pytest.mark.parametrize("name", ["SUDO_UID", "SHOAL_TRUST_UID"])
def test_who_became_root_for_it_and_whom_they_name_are_trusted(
    home: Home, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(home.root, STRANGER, STRANGER)
    monkeypatch.setenv(name, "no number")
    assert not _is_used(home)
    monkeypatch.setenv(name, str(STRANGER))
    assert _is_used(home)


@only_root
@pytest.mark.parametrize(
    ("group", "name", "members", "private"),
    [
        (0, "root", [], True),
        (12_345, None, [], False),
        (12_345, "root", ["root"], True),
        (12_345, "daemon", [], False),
        (12_345, "root", ["daemon"], False),
        (12_345, "all of the company", [], False),
    ],
)
def test_a_group_of_ours_alone_may_write(
    home: Home, group: int, name: str | None, members: list[str], private: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where each user has a group, and a umask of 002."""

    def entry(number: int) -> object:
        if number != group or name is None:
            raise KeyError(number)
        return type("Entry", (), {"gr_name": name, "gr_mem": members})

    def user(named: str) -> object:
        uids = {"root": 0, "daemon": 1}
        return type("User", (), {"pw_uid": uids[named], "pw_gid": group, "pw_name": named})

    monkeypatch.setattr(trust.grp, "getgrgid", entry)
    monkeypatch.setattr(trust.pwd, "getpwnam", user)
    for place in (home.root, home.run):
        os.chown(place, 0, group)
        place.chmod(0o775)
    assert _is_used(home) == private


def test_what_is_not_there_yet_is_ours(tmp_path: Path) -> None:
    trust.require_ours(tmp_path / "a" / "b")
    assert state.owner(Home(tmp_path / "a")) is None


def test_a_named_service_needs_no_home(home: Home) -> None:
    home.root.chmod(0o777)
    assert find_connection("far:1", "mine", home).target == "far:1"


@only_root
def test_keys_are_not_kept_in_somebody_elses_home(home: Home) -> None:
    os.chown(home.root, STRANGER, STRANGER)
    with pytest.raises(ConfigurationError, match="is not trusted"):
        keys_command.list_keys()


def test_a_planted_pipe_is_not_waited_for(home: Home) -> None:
    home.client.unlink()
    os.mkfifo(home.client, 0o600)
    with pytest.raises(ConfigurationError, match="can't be read"):
        find_connection(None, "mine", home)
