"""What the tests' configuration promises of a test that hangs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

FAILS_THEN_WAITS = """
import threading

import pytest


@pytest.fixture
def waits():
    yield
    threading.Event().wait()


def test_fails(waits):
    assert False


def test_next():
    pass
"""


def test_a_failed_test_whose_fixture_waits_for_good_is_ended(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(FAILS_THEN_WAITS)
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "tests.conftest",
            "-p",
            "no:cacheprovider",
            "-o",
            "timeout=0.5",
            tmp_path,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "1 failed, 1 passed, 1 error" in ran.stdout
    assert "Timeout" in ran.stdout
    assert "threading.Event().wait()" in ran.stdout
