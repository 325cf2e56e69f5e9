from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from shoal.cli import main
from shoal.local import state
from shoal.service.home import Home

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path / "home"))
    return Home.default()


def code_of(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_status_of_nothing_fails_and_says_so(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("status") == 1
    assert f"no service runs in {home.root}" in capsys.readouterr().err


def test_down_of_nothing_is_fine_and_says_so(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("down") == 0
    assert "no service runs" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--service", "-f"])
def test_a_wrong_service_file_is_named(
    option: str, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "shoal.yaml"
    file.write_text("router:\n  prot: 8080\n")
    assert code_of("up", option, str(file)) == 2
    assert f"{file}:2: router.prot: unknown key; did you mean 'port'?" in capsys.readouterr().err
    assert not home.root.exists(), "nothing is made for a service that can't run"


def test_a_second_up_is_refused(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with state.exclusive(home):
        assert code_of("up", "--detach") == 2
    assert f"already (process {os.getpid()})" in capsys.readouterr().err


def test_status_shows_parts_with_memory_and_cpu(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    part = state.PartState(
        name="worker-default-1",
        role="worker",
        state="ready",
        pid=os.getpid(),
        restarts=2,
        listen="127.0.0.1:20000",
        metrics=None,
        log="worker.log",
    )
    gone = part.model_copy(update={"name": "router", "pid": None, "state": "waiting"})
    running = state.ServiceState(
        pid=os.getpid(),
        ready=False,
        target="127.0.0.1:8080",
        store_url=None,
        models=str(home.models),
        logs=str(home.logs),
        parts=(part, gone),
    )
    (home.models / "reef").mkdir(parents=True)
    with state.exclusive(home):
        running.save(home)
        assert code_of("status") == 0
        table = capsys.readouterr().out
        assert code_of("status", "--json") == 0
    assert "worker-default-1" in table
    view = json.loads(capsys.readouterr().out)
    assert view["models"] == ["reef"]
    worker, router = view["parts"]
    assert worker["memory_bytes"] > 2**20
    assert worker["restarts"] == 2
    assert router["memory_bytes"] is None
