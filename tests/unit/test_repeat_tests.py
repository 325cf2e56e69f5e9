from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import repeat_tests

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_what_pytest_counted_is_summed_over_its_runs() -> None:
    log = (
        "3 passed in 0.1 seconds, said a test\n3985 passed in 81.39s (0:01:21)\n1 failed, 20 passed, 1 error in 6.00s\n"
    )
    assert repeat_tests.counts(log) == {"passed": 4005, "failed": 1, "error": 1}


def test_it_stops_at_the_first_run_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(repeat_tests, "ROOT", tmp_path)
    monkeypatch.setattr(repeat_tests, "LOG", tmp_path / "log")
    (tmp_path / "Makefile").write_text("test:\n\t@test ! -e second\n\t@touch second; echo '7 passed in 1.00s'\n")
    assert repeat_tests.main(["--times", "5", "--busy", "0"]) == 1
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert ", exit 0, 7 passed, 0 failed, load" in first
    assert second.startswith("run 2: ")
    assert ", exit 2, 0 passed" in second


def test_busy_loops_end_with_it_however_it_ends() -> None:
    code = "import repeat_tests, signal\nwith repeat_tests.busy_loops(2):\n    print(flush=True)\n    signal.pause()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        loops = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(loops, timeout=60)
    assert len(loops) == 2
    assert not alive
