"""``shoal up`` with every real part: ready, restarted, drained, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import pytest
from PIL import Image

from shoal.client import AsyncClient
from shoal.runtime.endpoint import Endpoint
from shoal.runtime.ports import is_free
from support.stack import Stack, running_stack, shoal
from support.tiny_models import BATCHING, add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


PARTS = ("store", "worker-default-1", "batcher-shared-1", "router")


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "red.jpg"
    Image.new("RGB", (64, 48), (250, 0, 0)).save(path, quality=95)
    return path


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service whose parts a test may end: they come back."""
    with running_stack(tmp_path_factory.mktemp("own") / "home", models=add_tiny_classifier) as running:
        yield running


def family(stack: Stack) -> list[psutil.Process]:
    return psutil.Process(stack.state().pid).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    _, left = psutil.wait_procs(processes, timeout=60)
    return [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def classify(stack: Stack, picture: Path) -> dict[str, object]:
    done = stack.shoal("classify", picture, "--model", "tiny", "--json", "--timeout", "60")
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_every_part_is_ready_and_a_picture_gets_its_label(stack: Stack, red: Path) -> None:
    view = json.loads(stack.shoal("status", "--json").stdout)
    assert [(part["name"], part["state"], part["restarts"]) for part in view["parts"]] == [
        (name, "ready", 0) for name in PARTS
    ]
    assert all(part["memory_bytes"] and part["cpu_seconds"] is not None for part in view["parts"])
    assert view["models"] == ["tiny", "tiny-detector"]
    classes = classify(stack, red)["classes"]
    assert isinstance(classes, list)
    assert classes[0]["label"] == "red"


def test_no_secret_shows_in_ps_or_in_a_log(stack: Stack) -> None:
    secrets = [stack.api_key, json.loads(stack.home.store_credentials.read_text())["secret_access_key"]]
    words = [word for process in family(stack) for word in process.cmdline()]
    logs = [file.read_text() for file in stack.home.logs.iterdir()]
    assert not [text for text in (*words, *logs) for secret in secrets if secret in text]


def test_a_second_up_in_the_same_home_is_refused(stack: Stack) -> None:
    done = stack.shoal("up", "--port", "0", check=False)
    assert done.returncode == 2
    assert "already" in done.stderr


def test_a_busy_port_is_named(tmp_path: Path) -> None:
    add_tiny_classifier(tmp_path / "models")
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        done = shoal(tmp_path, "up", "--port", port, check=False)
    assert done.returncode == 2
    assert f"127.0.0.1:{port}" in done.stderr


@pytest.mark.parametrize("name", PARTS)
async def test_a_part_that_crashes_comes_back(own: Stack, red: Path, name: str) -> None:
    classify(own, red)
    before = own.part(name)
    assert before.pid
    os.kill(before.pid, signal.SIGKILL)
    after = await own.restarted(before)
    assert (after.listen, after.restarts) == (before.listen, before.restarts + 1)
    assert after.pid != before.pid
    assert f"{name} ended with SIGKILL; starting it again" in (own.home.root / "up.log").read_text()
    classify(own, red)


def test_a_killed_supervisor_takes_everything_along(tmp_path: Path) -> None:
    with running_stack(tmp_path / "home", models=add_tiny_classifier) as stack:
        parts = family(stack)
        stack.process.kill()
        stack.process.wait()
        assert not alive(parts)
        assert stack.shoal("status", check=False).returncode == 1
        assert stack.shoal("down").returncode == 0


async def test_down_answers_what_is_in_flight_and_leaves_nothing(tmp_path: Path, red: Path) -> None:
    slow = replace(BATCHING, max_queue_delay_microseconds=1_000_000)
    with running_stack(tmp_path / "home", models=lambda store: add_tiny_classifier(store, batching=slow)) as stack:
        parts = family(stack)
        async with AsyncClient(stack.target, api_key=stack.api_key, timeout_seconds=60) as client:
            await client.classify(red, "tiny")
            waiting = asyncio.create_task(client.classify(red, "tiny"))
            await stack.until_metric("worker-default-1", "shoal_worker_batches_in_flight", 1)
            down = await asyncio.to_thread(stack.shoal, "down")
            assert (await waiting).classes[0].label == "red"
        assert "stopped" in down.stderr
        assert not alive(parts)
        assert is_free(Endpoint.parse(stack.target))


def test_detach_returns_when_ready_and_down_stops_it(tmp_path: Path, red: Path) -> None:
    add_tiny_classifier(tmp_path / "models")
    try:
        assert "ready in" in shoal(tmp_path, "up", "--detach", "--port", "0").stdout
        assert "red" in shoal(tmp_path, "classify", red, "--model", "tiny").stdout
    finally:
        shoal(tmp_path, "down")
    assert shoal(tmp_path, "status", check=False).returncode == 1


def test_a_start_that_fails_shows_why_and_leaves_nothing(tmp_path: Path) -> None:
    add_tiny_classifier(tmp_path / "models")
    file = tmp_path / "shoal.yaml"
    file.write_text("object_store: {url: 'az://pictures'}\n")
    done = shoal(tmp_path, "up", "--detach", "--port", "0", "--service", file, check=False)
    assert done.returncode == 2
    assert "worker-default-1 ended with exit code 2 before it was ready" in done.stderr
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False).stdout
    assert not left
