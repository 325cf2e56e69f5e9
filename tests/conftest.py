"""What holds for all tests."""

from __future__ import annotations

import faulthandler
import os
from pathlib import Path
from typing import Any

import pytest
from _pytest.faulthandler import (
    fault_handler_stderr_fd_key,
    get_exit_on_timeout_config_value,
    get_timeout_config_value,
)
from hypothesis import HealthCheck, settings

# A machine that has other work is slow at times, and no test asserts how long something took. In CI, what fails is of
# the change: the examples are always the same.
settings.register_profile(
    "shoal", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
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
_LIMIT = pytest.StashKey[Any]()
"""A test's time limit, as pytest-timeout set it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the long files come first, in each process the same."""
    items.sort(key=lambda item: _RANK.get(item.path, len(_RANK)))


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> None:
    item.stash[_LIMIT] = settings


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> None:
    """Sets both limits anew for what is left of a failed test: they are taken away then, for a debugger's sake, and a
    fixture that waits for what the test should have ended would wait for good."""
    if limit := node.stash.get(_LIMIT, None):
        node.config.hook.pytest_timeout_set_timer(item=node, settings=limit)
        if seconds := get_timeout_config_value(node.config):
            stderr, leave = (
                node.config.stash[fault_handler_stderr_fd_key],
                get_exit_on_timeout_config_value(node.config),
            )
            faulthandler.dump_traceback_later(seconds, file=stderr, exit=leave)
