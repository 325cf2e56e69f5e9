from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from shoal.errors import ConfigurationError
from shoal.runtime.envoy_admin import admin_socket, prepare


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A folder in which no socket can be."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("t")))


def test_the_socket_is_with_envoys_files() -> None:
    assert admin_socket(Path("/home/run/router")) == Path("/home/run/router/admin.sock")


def test_a_path_that_is_too_long_for_a_socket_has_another_place(deep: Path) -> None:
    socket = admin_socket(deep)
    assert len(os.fsencode(socket)) <= 107
    assert socket == admin_socket(deep)
    assert socket != admin_socket(deep.with_name("y" * 100))


def test_that_place_is_ours_alone(deep: Path) -> None:
    prepare(deep)
    prepare(deep)
    assert stat.S_IMODE(admin_socket(deep).parent.stat().st_mode) == 0o700


def test_a_place_that_others_prepared_is_refused(deep: Path, tmp_path: Path) -> None:
    place = admin_socket(deep).parent
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(ConfigurationError, match="isn't ours alone"):
        prepare(deep)
    place.rmdir()
    (tmp_path / "theirs").mkdir(mode=0o700)
    place.symlink_to(tmp_path / "theirs")
    with pytest.raises(ConfigurationError, match="isn't ours alone"):
        prepare(deep)
