"""What holds for all tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    import pytest

# A machine that has other work is slow at times, and no test asserts how long something took.
settings.register_profile("shoal", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shoal")

_LONGEST_FIRST = (
    "integration/test_documentation.py",
    "chaos/test_streams.py",
    "chaos/test_neighbours.py",
    "integration/test_readiness.py",
    "integration/test_pipelines.py",
    "integration/test_own_service.py",
    "integration/test_model_sync.py",
    "integration/test_triton.py",
    "integration/test_worker_processes.py",
    "integration/test_device_decoding.py",
    "integration/test_batcher.py",
)
"""A file's tests stay in one process: a long file that is begun last is waited for alone."""
_RANK = {Path(__file__).parent.joinpath(name).resolve(strict=True): n for n, name in enumerate(_LONGEST_FIRST)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the long files come first, in each process the same."""
    items.sort(key=lambda item: _RANK.get(item.path, len(_RANK)))
