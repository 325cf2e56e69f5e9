"""``worker_processes: 2``: two processes beside one real Triton, through the whole service."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from shoal.client import AsyncClient
from shoal.engine.triton.shared_memory import DEVICE
from shoal.errors import ShoalError
from support.stack import Stack, running_stack
from support.steady_load import FILES, steady_load
from support.tiny_models import add_mixing_classifier, add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = "pools: {default: {engine: triton, worker_processes: 2, decode_threads: 3, fetch_concurrency: 10}}\n"
DEADLINE_SECONDS = 60.0
PROCESSES = ("worker-default-1.1", "worker-default-1.2")
TRITON = "triton-default-1"


def slots(stack: Stack, part: str) -> set[Path]:
    """The regions of one process."""
    files = (file.readlink() for file in Path(f"/proc/{stack.part(part).pid}/fd").iterdir())
    return {file for file in files if file.parent == DEVICE}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One worker, of two processes. After its end nothing of it is left in shared memory, nor any process."""

    def add_models(store: Path) -> None:
        add_tiny_classifier(store, runner="python")
        add_mixing_classifier(store, "mixing", runner="python")

    with running_stack(tmp_path_factory.mktemp("processes") / "home", models=add_models, service=SERVICE) as running:
        yield running
        used = slots(running, PROCESSES[0]) | slots(running, PROCESSES[1])
        pids = [part.pid for part in running.state().parts]
        memory = set(DEVICE.glob(f"shoal-triton-*-{running.part(TRITON).pid}-*"))
    assert used
    assert memory
    assert not any(path.exists() for path in used | memory)
    assert not any(psutil.pid_exists(pid) for pid in pids if pid)


async def executed(stack: Stack, part: str) -> float:
    return await stack.metric(part, "shoal_worker_batch_size_sum", model="tiny")


async def test_both_answer_beside_one_triton(stack: Stack) -> None:
    parts = {part["name"]: part for part in json.loads(stack.shoal("status", "--json").stdout)["parts"]}
    assert [name for name in parts if name.startswith("worker")] == [*PROCESSES]
    assert [name for name in parts if name.startswith("triton")] == [TRITON]
    assert not slots(stack, PROCESSES[0]) & slots(stack, PROCESSES[1])
    before = [await executed(stack, part) for part in PROCESSES]
    async with steady_load(stack, "tiny", rate=60, deadline_seconds=DEADLINE_SECONDS) as load:
        await load.more(240)
    assert not [request.trouble for request in load.requests if request.outcome != "answered"]
    after = [await executed(stack, part) for part in PROCESSES]
    each = [now - then for now, then in zip(after, before, strict=True)]
    assert sum(each) == len(load.requests)
    assert min(each) > 0.2 * sum(each), "the load balancer sees both"


async def test_each_has_its_share_and_the_sum_is_what_the_pool_says(stack: Stack) -> None:
    threads = [await stack.metric(part, "shoal_worker_decode_threads") for part in PROCESSES]
    assert threads == [2, 2]
    for what, whole in (("instances", 2), ("permit_limit", 4)):
        told = [await stack.metric(part, f"shoal_worker_{what}", model="mixing") for part in PROCESSES]
        assert sum(told) == whole


async def test_a_model_that_mixes_pictures_is_found_out_by_both(stack: Stack) -> None:
    """Each loads it anew for batches of 1. One that tried it while the other did so may have to try again."""
    async with AsyncClient(stack.target, api_key=stack.api_key, timeout_seconds=DEADLINE_SECONDS) as client:
        for label in FILES:
            assert (await client.classify(FILES[label], "mixing")).classes
    for part in PROCESSES:
        await stack.until_metric(part, "shoal_worker_batch_limit", 1, model="mixing")


@pytest.mark.parametrize(("name", "number"), [(PROCESSES[0], signal.SIGKILL), (PROCESSES[1], signal.SIGTERM)])
async def test_nothing_is_lost_when_one_of_them_ends(stack: Stack, name: str, number: signal.Signals) -> None:
    before, triton = stack.part(name), stack.part(TRITON)
    (other,) = (stack.part(each) for each in PROCESSES if each != name)
    left = slots(stack, name)
    assert left
    async with steady_load(stack, "tiny", rate=40, deadline_seconds=DEADLINE_SECONDS) as load:
        await load.more(40)
        assert before.pid
        psutil.Process(before.pid).send_signal(number)
        await stack.restarted(before)
        await load.more(80)
    assert not [request.trouble for request in load.requests if request.outcome != "answered"]
    assert (stack.part(TRITON).pid, stack.part(other.name).pid) == (triton.pid, other.pid)
    assert await executed(stack, name) > 0, "it takes part again"
    assert not any(path.exists() for path in left)


async def test_both_recover_when_triton_ends(stack: Stack) -> None:
    before = stack.part(TRITON)
    counts = [await executed(stack, part) for part in PROCESSES]
    async with steady_load(stack, "tiny", rate=40, deadline_seconds=DEADLINE_SECONDS) as load:
        await load.more(40)
        assert before.pid
        psutil.Process(before.pid).kill()
        await stack.restarted(before)
        await load.more(120)
    assert not [request.trouble for request in load.requests if request.outcome != "answered"]
    assert all([await executed(stack, part) > then for part, then in zip(PROCESSES, counts, strict=True)])


async def test_models_come_and_go_for_both(stack: Stack) -> None:
    add_tiny_classifier(stack.home.models, "late", runner="python")
    for part in PROCESSES:
        await stack.until_metric(part, "shoal_worker_batch_limit", 4, model="late")
    shutil.rmtree(stack.home.models / "late")
    for part in PROCESSES:
        await stack.until_metric(part, "shoal_worker_batch_limit", 0, model="late")
    async with AsyncClient(stack.target, api_key=stack.api_key, timeout_seconds=DEADLINE_SECONDS) as client:
        with pytest.raises(ShoalError, match="late"):
            await client.classify(FILES["green"], "late")
        assert (await client.classify(FILES["green"], "tiny")).classes[0].label == "green"


def test_another_number_of_processes_needs_a_new_start_alone(tmp_path: Path) -> None:
    for processes in (2, 1):
        service = f"pools: {{default: {{engine: triton, worker_processes: {processes}}}}}"
        models = (lambda store: add_tiny_classifier(store, runner="python")) if processes == 2 else lambda _: None
        with running_stack(tmp_path / "home", models=models, service=service) as stack:
            assert sum(part.role == "worker" for part in stack.state().parts) == processes
            picture = tmp_path / "green.jpg"
            picture.write_bytes(FILES["green"])
            told = json.loads(stack.shoal("classify", picture, "--model", "tiny", "--json").stdout)
            assert told["classes"][0]["label"] == "green"
