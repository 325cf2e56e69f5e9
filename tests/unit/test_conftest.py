"""What the tests' configuration promises of a test that hangs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

FAILS_THEN_WAITS = """
import signal
import threading

import pytest


@pytest.fixture
def waits():
    yield
    if DEAF:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    threading.Event().wait()


def test_fails(waits):
    assert False


def test_next():
    pass
"""


def run(folder: Path, *, deaf: bool) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(f"DEAF = {deaf}\n{FAILS_THEN_WAITS}")
    limits = [f"-o{limit}" for limit in ("timeout=0.5", "faulthandler_timeout=2", "faulthandler_exit_on_timeout=true")]
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", *limits, str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_a_failed_test_whose_fixture_waits_for_good_is_ended(tmp_path: Path) -> None:
    ran = run(tmp_path, deaf=False)
    assert "1 failed, 1 passed, 1 error" in ran.stdout
    assert "Timeout" in ran.stdout
    assert "threading.Event().wait()" in ran.stdout


def test_one_that_is_deaf_to_signals_then_ends_the_run(tmp_path: Path) -> None:
    ran = run(tmp_path, deaf=True)
    assert ran.returncode == 1
    assert "test_it.py FE" not in ran.stdout
    assert "in waits" in ran.stderr
