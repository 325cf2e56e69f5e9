from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigurationError
from shoal.local import state
from shoal.service.home import Home

if TYPE_CHECKING:
    from pathlib import Path

STATE = state.ServiceState(
    pid=1, ready=True, target="127.0.0.1:8080", store_url=None, models="models", logs="logs", parts=()
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_nothing_runs_in_a_new_home(home: Home) -> None:
    assert state.owner(home) is None
    assert state.running(home) is None


def test_the_lock_says_who_runs_and_the_file_what(home: Home) -> None:
    with state.exclusive(home):
        assert state.owner(home) == os.getpid()
        assert state.running(home) is None, "not written yet"
        STATE.save(home)
        assert state.running(home) == STATE
    assert state.owner(home) is None
    assert state.running(home) is None


def test_a_second_supervisor_is_refused(home: Home) -> None:
    with (
        state.exclusive(home),
        pytest.raises(ConfigurationError, match=rf"already \(process {os.getpid()}\).*shoal down"),
        state.exclusive(home),
    ):
        pass


def test_a_file_of_a_dead_supervisor_misleads_no_one(home: Home) -> None:
    hold = (
        "import os, sys, pathlib\n"
        "from shoal.service.home import Home\n"
        "from shoal.local import state\n"
        "home = Home(pathlib.Path(sys.argv[1]))\n"
        "with state.exclusive(home):\n"
        "    (home.run / 'state.json').write_text(sys.argv[2])\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", hold, str(home.root), STATE.model_dump_json()], check=False)
    assert (home.run / "state.json").exists()
    assert state.running(home) is None
    with state.exclusive(home):
        assert state.owner(home) == os.getpid()


def test_terminate_waits_for_the_end() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        assert state.terminate(process.pid, 10)
        assert process.wait() == -15
        assert state.terminate(process.pid, 10), "it is gone already"


def test_terminate_gives_up() -> None:
    stubborn = "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-S", "-c", stubborn], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert not state.terminate(process.pid, 0.05)
        process.kill()


def test_the_client_file_is_for_its_owner_alone(home: Home) -> None:
    home.run.mkdir(parents=True)
    home.client.write_text("old")
    home.client.chmod(0o644)
    state.save_client(home, "127.0.0.1:8080", "secret")
    assert stat.S_IMODE(home.client.stat().st_mode) == 0o600
    assert "secret" in home.client.read_text()
