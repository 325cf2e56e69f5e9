from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from shoal.threads import usable_cores

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("quota", "cores"), [("50000 100000", 1), ("100000 100000", 1), ("99900000 100000", None)])
def test_a_quota_bounds_the_cores(tmp_path: Path, quota: str, cores: int | None) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert usable_cores(tmp_path / "cpu.max") == (cores or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("quota", ["max 100000", "", "nonsense"])
def test_without_a_quota_all_cores_count(tmp_path: Path, quota: str) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert usable_cores(tmp_path / "cpu.max") == len(os.sched_getaffinity(0))
    assert usable_cores(tmp_path / "missing") == len(os.sched_getaffinity(0))
