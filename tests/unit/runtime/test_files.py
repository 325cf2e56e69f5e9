from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from shoal.runtime.files import replace_file

if TYPE_CHECKING:
    from pathlib import Path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_replaced_file_is_private_whatever_was_there(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("old")
    file.chmod(0o644)
    replace_file(file, "new")
    assert file.read_text() == "new"
    assert mode_of(file) == 0o600


def test_a_replacement_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "secret" / "in-the-way").mkdir(parents=True)
    with pytest.raises(OSError, match="secret"):
        replace_file(tmp_path / "secret", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize(("asked", "got"), [(None, 0o640), (0o664, 0o664)])
def test_a_mode_is_as_asked_for_and_none_as_the_umask_has_it(tmp_path: Path, asked: int | None, got: int) -> None:
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "page", b"\xff", asked)
    finally:
        os.umask(before)
    assert (tmp_path / "page").read_bytes() == b"\xff"
    assert mode_of(tmp_path / "page") == got
