from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigurationError
from shoal.runtime import private

if TYPE_CHECKING:
    from pathlib import Path


def test_a_replaced_file_is_private_whatever_was_there(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("old")
    file.chmod(0o644)
    private.replace(file, "new")
    assert private.read(file) == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_replacement_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "secret" / "in-the-way").mkdir(parents=True)
    with pytest.raises(OSError, match="secret"):
        private.replace(tmp_path / "secret", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize(("mode", "accepted"), [(0o440, True), (0o640, True), (0o444, False), (0o460, False)])
def test_what_our_group_may_read_is_private_if_it_is_lent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, accepted: bool
) -> None:
    """As a file of a Secret is that was mounted by its path, with an fsGroup: root's, for our group."""
    file = tmp_path / "secret"
    file.write_text("hush")
    file.chmod(mode)
    with pytest.raises(ConfigurationError, match="lets others read it"):
        private.read(file)
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    if accepted:
        assert private.read(file) == b"hush"
    else:
        with pytest.raises(ConfigurationError, match="lets others read it"):
            private.read(file)
