"""A configuration that Envoy doesn't take: the router says why, soon, and without the keys."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from shoal.errors import ConfigurationError
from shoal.router import config, refused
from support.router_rig import PATIENCE, running

if TYPE_CHECKING:
    from pathlib import Path

_RENDER = config.render


def broken(*arguments: Any, **fields: Any) -> dict[str, str]:
    """Routes with an expression that Envoy refuses, beside the keys."""
    files = _RENDER(*arguments, **fields)
    text = files[config.PUBLIC_ROUTES]
    assert '"prefix": "/shoal.v1.Inference/"' in text
    unclosed = '"safe_regex": {"regex": "(never closed"}'
    files[config.PUBLIC_ROUTES] = text.replace('"prefix": "/shoal.v1.Inference/"', unclosed)
    return files


async def test_the_first_configuration_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "render", broken)
    with pytest.raises(ConfigurationError, match=r"Envoy refuses the configuration: .*never closed"):
        async with running(tmp_path) as rig:
            await asyncio.wait({rig.router}, timeout=PATIENCE)


async def test_a_later_one_is_told_in_the_log_and_the_one_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    async with running(tmp_path) as rig:
        monkeypatch.setattr(config, "render", broken)
        (rig.home.models / "new").mkdir()
        (rig.home.models / "new" / "config.pbtxt").touch()
        async with asyncio.timeout(PATIENCE):
            while not (said := [each.getMessage() for each in caplog.records if each.name == refused.__name__]):
                await asyncio.sleep(0.05)  # until another process has answered
        assert "never closed" in said[0]
        assert "keeps the one before" in said[0]
        assert rig.alice.key not in caplog.text
        assert await rig.code(rig.alice.key) == "OK"
