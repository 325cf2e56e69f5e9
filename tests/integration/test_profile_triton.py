"""``shoal profile`` against a real Triton."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.concurrency.run import EXPERIMENTS, Setup, parser
from shoal.cli.profile_table import described
from shoal.engine.triton.shared_memory import DEVICE
from shoal.local.running_triton import running
from shoal.modelconfig.pbtxt import FILE
from shoal.profile import choice
from shoal.profile.records import read
from shoal.triton.client import TritonClient
from shoal.triton.fetch_server import fetch
from shoal.triton.installation import default_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

LANES = Path(__file__).resolve().parents[1] / "support" / "cpu_lanes"
CONFIG = """name: "slow"
backend: "python"
max_batch_size: 4
input [ { name: "image" data_type: TYPE_UINT8 dims: [16, 16, 3] } ]
output [ { name: "mean" data_type: TYPE_FP32 dims: [1] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]  # a process
dynamic_batching { max_queue_delay_microseconds: 100 }
"""
MODEL = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        rows = [np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "image")) for request in requests]
        time.sleep(0.02)
        means = [each.reshape(len(each), -1).mean(1, np.float32, keepdims=True) for each in rows]
        return [pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("mean", mean)]) for mean in means]
"""
SHORT = ("--duration", "0.2", "--warm-up", "0.2", "--rounds", "1", "--batch", "4", "--no-plot")


@pytest.fixture(scope="module", autouse=True)
def triton() -> None:
    fetch(default_folder(), print)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store" / "slow"
    (folder / "1").mkdir(parents=True)
    (folder / FILE).write_text(CONFIG)
    (folder / "1" / "model.py").write_text(MODEL)
    return folder.parent


@pytest.fixture
async def url(store: Path, tmp_path: Path) -> AsyncIterator[str]:
    async with running(store, tmp_path) as server:
        yield server.url


async def registered(url: str) -> set[str]:
    """The shared memory that the server knows."""
    client = TritonClient(url)
    try:
        return await client.registered()
    finally:
        await client.close()


def there(names: set[str]) -> bool:
    return any((DEVICE / name).exists() for name in names)


@pytest.fixture(autouse=True)
def ctrl_c_is_heard() -> Iterator[None]:
    """In the background of a shell SIGINT is ignored, and then by all that is started from here."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


async def start(folder: Path, url: str, *words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "shoal", "profile", "slow", "--triton", url, "--output", str(folder), *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def profile(folder: Path, url: str, *words: str) -> tuple[int | None, str, str]:
    process = await start(folder, url, *words)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def kept(folder: Path) -> dict[tuple[int, int], Any]:
    """Cells by instances and concurrency."""
    cells = json.loads((folder / "profile.json").read_text())["cells"]
    return {(cell["instances"], cell["concurrency"]): cell for cell in cells}


async def test_instances_are_loaded_measured_chosen_and_put_back(url: str, store: Path, tmp_path: Path) -> None:
    options = (*SHORT, "--instances", "1,2", "--concurrency", "1,2", "--latency-slo-ms", "1000", "--write")
    code, out, err = await profile(tmp_path / "p", url, *options, "--store", str(store))
    assert code == 0, err
    cells = kept(tmp_path / "p")
    assert cells.keys() == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert cells[1, 2]["executed_batch"] == 4
    assert all(cell["p50_ms"]["median"] >= 20 for cell in cells.values())  # a batch sleeps for so long
    measured = read(tmp_path / "p" / "profile.json")
    assert measured is not None
    found = choice.best(measured.cells, 1000)
    assert found is not None
    assert f"best with p99 within 1000 ms: {described(found)}" in out
    assert f"count: {found.instances} kind: KIND_CPU }} ]  # a process" in (store / "slow" / FILE).read_text()
    client = TritonClient(url)
    assert (await client.versions())["slow"] == 0  # as it was found: not loaded
    await client.close()
    assert await registered(url) == set()


async def test_a_loaded_model_is_left_as_it_was_and_a_second_run_goes_on(url: str, tmp_path: Path) -> None:
    client = TritonClient(url)
    await client.load("slow")
    before = await client.config("slow")
    code, _, err = await profile(tmp_path / "p", url, *SHORT, "--instances", "2", "--concurrency", "1")
    assert code == 0, err
    assert await client.config("slow") == before
    first = kept(tmp_path / "p")
    code, _, err = await profile(tmp_path / "p", url, *SHORT, "--instances", "2", "--concurrency", "1,2")
    assert code == 0, err
    assert kept(tmp_path / "p")[2, 1] == first[2, 1]
    assert kept(tmp_path / "p").keys() == {(2, 1), (2, 2)}
    await client.close()


async def test_batches_that_triton_merges_are_told(url: str, tmp_path: Path) -> None:
    code, out, err = await profile(tmp_path / "p", url, *SHORT, "--concurrency", "8", "--batch", "1")
    assert code == 0, err
    assert "dynamic batcher merged batches" in out
    assert kept(tmp_path / "p")[1, 8]["executed_batch"] > 1.5


async def begun(folder: Path, url: str) -> tuple[asyncio.subprocess.Process, set[str]]:
    """A profile that would take minutes, with its first measurement done, and the shared memory that it uses."""
    words = ("--duration", "1", "--warm-up", "0", "--rounds", "100", "--batch", "4", "--no-plot", "--concurrency", "2")
    process = await start(folder, url, *words)
    while not (folder / "profile.json").exists():
        await asyncio.sleep(0.02)
        assert process.returncode is None
    used = await registered(url)
    assert len(used) == 2
    assert there(used)
    return process, used


async def test_ctrl_c_shows_what_there_is_and_leaves_no_memory(url: str, tmp_path: Path) -> None:
    process, used = await begun(tmp_path / "p", url)
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert process.returncode == 130, err.decode()
    assert "images/s" in out.decode()
    assert not there(used)
    assert await registered(url) == set()


async def test_a_triton_that_dies_ends_it_with_what_there_is(store: Path, tmp_path: Path) -> None:
    async with running(store, tmp_path, models=("slow",)) as server:
        process, used = await begun(tmp_path / "p", server.url)
        server.process.kill()
        out, err = await process.communicate()
    assert process.returncode == 1
    assert "is away (UNAVAILABLE)" in err.decode()
    assert "images/s" in out.decode()
    assert not there(used)


@pytest.mark.parametrize("name", ["lanes", "together"])
async def test_the_experiments_for_a_gpu_run(tmp_path: Path, name: str) -> None:
    """Their control flow, with lanes that only sleep."""
    words = [str(tmp_path / "out"), "--lanes", str(LANES), "--seconds", "0.1", "--warm-up", "0.1", "--rounds", "1"]
    options = parser().parse_args(words)
    options.output.mkdir()
    setup = Setup(options, tmp_path / "scratch")
    if name == "lanes":
        await EXPERIMENTS["raw"](setup)
    await EXPERIMENTS[name](setup)
    if name == "lanes":
        cells = json.loads((tmp_path / "out" / "raw.json").read_text())["cells"]
        assert [cell["concurrency"] for cell in cells] == [1, 2, 4, 8, 16]
        assert {concurrency for _, concurrency in kept(tmp_path / "out" / "lanes")} == {1, 2, 4, 8, 16}
    else:
        rows = json.loads((tmp_path / "out" / "together.json").read_text())["rows"]
        assert {(row["server"], row["in_flight"], len(row["networks"])) for row in rows} == {
            (server, in_flight, networks)
            for server in ("one-process", "a-process-each")
            for in_flight in (1, 4)
            for networks in (1, 2)
        }
    shutil.rmtree(tmp_path / "out")
