from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.engine.openvino import OpenVinoEngine
from shoal.service.spec import Service
from shoal.worker.backing import choose

if TYPE_CHECKING:
    from pathlib import Path


def test_an_engine_within_the_worker_computes_on_its_cores(tmp_path: Path) -> None:
    engine = choose(Service(), "default", tmp_path / "models", tmp_path / "cache", None, 3).engine
    assert isinstance(engine, OpenVinoEngine)
    assert engine._threads == 3
