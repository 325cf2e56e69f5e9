from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from shoal.cli import main
from shoal.explain.endpoint import serve
from shoal.explain.views import Answer, Memory
from shoal.local import state
from shoal.observe.metrics import WORKER
from shoal.runtime.endpoint import Endpoint
from shoal.service.home import Home
from support.visits import batcher_visit, worker_visit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KNOWN = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
OTHER = "00000000-0000-4000-8000-000000000000"
MEMORY = Memory(requests=1234, limit=10_000, seconds=61.4)


def batcher(image_uuid: str) -> Answer:
    return Answer(memory=MEMORY, batcher=(batcher_visit(),) if image_uuid == KNOWN else ())


def worker(image_uuid: str) -> Answer:
    return Answer(memory=Memory(requests=0, limit=0), worker=(worker_visit(),) if image_uuid == KNOWN else ())


@pytest.fixture(scope="module")
def parts() -> Iterator[tuple[str, str]]:
    """The metrics addresses of a batcher and a worker."""
    servers = [serve(Endpoint("127.0.0.1", 0), WORKER, role) for role in (batcher, worker)]
    yield f"127.0.0.1:{servers[0].endpoint.port}", f"127.0.0.1:{servers[1].endpoint.port}"
    for server in servers:
        server.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path / "home"))
    return Home.default()


def code_of(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def service(home: Home, metrics: tuple[str, str]) -> None:
    """The state file of a service that runs."""
    roles = {"store": None, "batcher": metrics[0], "worker": metrics[1], "router": "127.0.0.1:1"}
    parts = tuple(
        state.PartState(
            name=f"{role}-1",
            role=role,
            state="ready",
            pid=os.getpid(),
            restarts=0,
            listen="127.0.0.1:1",
            metrics=f"http://{address}/metrics" if address else None,
            log="",
        )
        for role, address in roles.items()
    )
    state.ServiceState(pid=os.getpid(), ready=True, target="", store_url=None, models="", logs="", parts=parts).save(
        home
    )


def test_the_parts_that_run_here_are_asked(
    home: Home, parts: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with state.exclusive(home):
        service(home, parts)
        assert code_of("explain", KNOWN.upper()) == 0
    told = capsys.readouterr()
    assert f"classify {KNOWN}" in told.out
    assert "batcher-1: for key key-1" in told.out
    assert "worker-1: 2 pictures ran together" in told.out
    assert told.err == ""


def test_json_is_the_same_for_programs(parts: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("explain", KNOWN, "--json", "--at", parts[0], "--at", parts[1]) == 0
    record = json.loads(capsys.readouterr().out)
    (request,) = record["requests"]
    assert (request["batcher_part"], request["worker_part"]) == parts
    assert sum(request["stage_seconds"].values()) == pytest.approx(request["total_seconds"])
    assert request["batcher"]["batch"]["closed_because"] == "delay"
    assert len(request["explanation"]) == 3
    assert record["remembered"][parts[0]] == MEMORY.model_dump()
    assert record["silent"] == {}


def test_a_part_that_is_away_is_named_and_the_rest_is_shown(
    parts: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of("explain", KNOWN, "--at", parts[0], "--at", "127.0.0.1:1") == 0
    told = capsys.readouterr()
    assert "shoal: 127.0.0.1:1 was not heard: " in told.err
    assert "no worker that was asked remembers it" in told.out


def test_an_unknown_one_fails_and_says_how_far_back_the_parts_remember(
    parts: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of("explain", OTHER, "--at", parts[0], "--at", parts[1]) == 1
    told = capsys.readouterr()
    assert f"{parts[0]} remembers 1,234 requests, since 61 s ago" in told.err
    assert f"{parts[1]} remembers none: observe.recent_requests is 0" in told.err
    assert told.out == ""


def test_nobody_to_ask(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("explain", KNOWN) == 1
    assert "no service runs in" in capsys.readouterr().err
    assert code_of("explain", KNOWN, "--at", "127.0.0.1:1") == 1
    assert "none answered" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("not-a-uuid",), (KNOWN, "--at", "nowhere")])
def test_a_wrong_command_line(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("explain", *arguments) == 2
    assert capsys.readouterr().err.startswith(f"shoal: {arguments[-1]!r}")
