"""Real children, small ones: Python without site packages starts in 20 ms."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from shoal.errors import ConfigurationError, Unavailable
from shoal.local import process
from shoal.local.plan import Component, Part, Protocol
from shoal.local.process import LocalProcess, describe_exit, rotate, tail
from shoal.runtime import tether
from shoal.runtime.ports import FreePorts

if TYPE_CHECKING:
    from pathlib import Path

LISTEN = "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); "
SERVING = (
    "import sys, time, grpc\n"
    "from concurrent.futures import ThreadPoolExecutor\n"
    "from grpc_health.v1 import health, health_pb2_grpc\n"
    "server = grpc.server(ThreadPoolExecutor(1))\n"
    "health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)\n"
    "server.add_insecure_port(f'127.0.0.1:{sys.argv[1]}')\n"
    "server.start()\n"
    "server.wait_for_termination()\n"
)


def script(code: str, ready: Protocol = Protocol.TCP, **environment: str) -> Part:
    listen = FreePorts()()
    command = (sys.executable, "-c", code, str(listen.port))
    return Part("child", Component.WORKER, command, listen, ready, environment=environment)


@pytest.mark.parametrize(
    ("code", "ready"), [(f"{LISTEN} s.accept(); s.accept()", Protocol.TCP), (SERVING, Protocol.GRPC)]
)
async def test_it_is_ready_once_it_answers(tmp_path: Path, code: str, ready: Protocol) -> None:
    child = await LocalProcess.start(script(code, ready), tmp_path)
    await child.ready()
    await child.stop()
    assert not psutil.pid_exists(child.pid)


async def test_what_it_prints_goes_to_its_log(tmp_path: Path) -> None:
    child = await LocalProcess.start(script("import os; print(os.environ['WORD'])", WORD="herring"), tmp_path)
    assert await child.wait() == 0
    assert (tmp_path / "child.log").read_text() == "herring\n"


async def test_an_early_end_shows_the_end_of_the_log(tmp_path: Path) -> None:
    child = await LocalProcess.start(script("raise SystemExit('no such reef')"), tmp_path)
    with pytest.raises(Unavailable, match=r"child ended with exit code 1 before it was ready(.|\n)*no such reef"):
        await child.ready()


async def test_a_child_that_calls_its_configuration_wrong_is_believed(tmp_path: Path) -> None:
    child = await LocalProcess.start(script("raise SystemExit(2)"), tmp_path)
    with pytest.raises(ConfigurationError):
        await child.ready()


async def test_a_child_that_never_gets_ready_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "READY_SECONDS", 0.05)
    child = await LocalProcess.start(script("import signal; signal.pause()"), tmp_path)
    with pytest.raises(Unavailable, match="wasn't ready"):
        await child.ready()
    await child.stop()


async def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    part = Part("child", Component.STORE, ("no-such-program",), FreePorts()(), Protocol.TCP)
    child = await LocalProcess.start(part, tmp_path)
    with pytest.raises(Unavailable, match="no-such-program: No such file"):
        await child.ready()


async def test_one_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "DRAIN_SECONDS", 0.05)
    stubborn = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {LISTEN} signal.pause()"
    child = await LocalProcess.start(script(stubborn), tmp_path)
    await child.ready()
    await child.stop()
    assert await child.wait() == -signal.SIGKILL


async def test_what_it_started_ends_with_it(tmp_path: Path) -> None:
    parent = "import subprocess; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); raise SystemExit"
    child = await LocalProcess.start(script(parent), tmp_path)
    await child.wait()
    grandchild = int((tmp_path / "child.log").read_text())
    psutil.wait_procs([psutil.Process(grandchild)] if psutil.pid_exists(grandchild) else [], timeout=60)
    assert not psutil.pid_exists(grandchild)


def test_a_killed_parent_takes_the_child_along() -> None:
    parent = (
        "import os, subprocess, sys\n"
        f"p = subprocess.Popen([sys.executable, '-S', {tether.__file__!r}, str(os.getpid()), 'sleep', '600'])\n"
        "print(p.pid, flush=True)\n"
        "p.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-S", "-c", parent], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout
        child = psutil.Process(int(supervisor.stdout.readline()))
        # The tie is knotted before the exec, which shows in the command line.
        while "sleep" not in child.name():
            os.sched_yield()
        supervisor.kill()
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_child_whose_parent_is_gone_already_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-S", tether.__file__, "1", "echo", "alive"], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_large_log_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_LARGEST_LOG", 10)
    log = tmp_path / "logs" / "store.log"
    rotate(log)
    log.write_text("short")
    rotate(log)
    assert log.exists()
    log.write_text("longer than ten bytes")
    rotate(log)
    assert not log.exists()
    assert (tmp_path / "logs" / "store.log.1").read_text() == "longer than ten bytes"


def test_the_tail_is_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == "  (it says nothing)"
    log.write_text("".join(f"{n}\n" for n in range(10_000)))
    assert tail(log, 2) == "  9998\n  9999"


def test_exit_statuses_are_told_in_words() -> None:
    assert [describe_exit(code) for code in (0, 3, -9, -99)] == ["exit code 0", "exit code 3", "SIGKILL", "signal 99"]
