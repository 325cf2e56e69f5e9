from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shoal.service.home import Home
from shoal.service.spec import parse

if TYPE_CHECKING:
    import pytest


def test_the_home_is_shoal_home_or_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path / "elsewhere"))
    assert Home.default().root == tmp_path / "elsewhere"
    monkeypatch.setenv("SHOAL_HOME", "")
    monkeypatch.chdir(tmp_path)
    assert Home.default().root == tmp_path / ".shoal"
    assert not Home.default().root.exists(), "asking makes nothing"


def test_paths_lie_within(tmp_path: Path) -> None:
    home = Home(tmp_path)
    paths = (home.models, home.keys, home.store_credentials, home.objects, home.cache, home.logs, home.run)
    assert len(set(paths)) == len(paths)
    assert all(path.parent == tmp_path for path in paths)


def test_the_service_file_may_name_other_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    home = Home(tmp_path / ".shoal")
    assert home.model_store(parse("", "s")) == home.models
    assert home.keys_file(parse("", "s")) == home.keys
    assert home.credentials_file(parse("", "s")) == home.store_credentials
    named = parse(
        "model_store: {path: /models}\nauth: {keys_file: ~/keys.json}\nobject_store: {credentials_file: /s3.json}", "s"
    )
    assert home.model_store(named) == Path("/models")
    assert home.keys_file(named) == tmp_path / "keys.json"
    assert home.credentials_file(named) == Path("/s3.json")
