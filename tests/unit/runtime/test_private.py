from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigurationError
from shoal.runtime import private

if TYPE_CHECKING:
    from pathlib import Path


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
