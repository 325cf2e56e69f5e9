from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from shoal import private

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
