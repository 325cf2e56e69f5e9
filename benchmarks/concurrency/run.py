"""ResNet-152 on a GPU through ``shoal profile`` and a real Triton, beside the ceiling without a server. 8 minutes.

python -m benchmarks.concurrency.run OUTPUT --server FOLDER [EXPERIMENT ...]

FOLDER holds the content of the nvidia-pytriton wheel (``pytriton/``, ``nvidia_pytriton.libs/``); without it the server
that ``shoal triton fetch`` brought is used. Needs a CUDA GPU, torch and torchvision in the Python that runs this.

raw        the ceiling: lanes in one process, no server
lanes      Triton, one process with a lane for each batch in flight, as a native backend executes
processes  Triton, a process each instance: what instance_group means for the Python backend
together   two networks at once: both in one process, against one process each
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tritonclient.grpc import service_pb2 as v2

from benchmarks.common.options import add_names
from benchmarks.common.python_models import add_model
from benchmarks.common.unpacked import use_unpacked
from benchmarks.gpu.raw import ANSWERED, BATCH, NETWORK, batch
from shoal.local.running_triton import running
from shoal.profile.machine import this_machine
from shoal.profile.measure import ClosedLoop, load_together
from shoal.profile.observer import Pace
from shoal.profile.triton_target import Asked, TritonTarget
from shoal.triton.client import TritonClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

HERE = Path(__file__).parents[1] / "gpu"
OTHER = "resnet50"
IN_FLIGHT = (1, 2, 4, 8, 16)
PROCESSES = (1, 2, 4, 8)
TOGETHER = (1, 4)


class Setup:
    """What all experiments share."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self.output: Path = options.output
        self.seconds: float = options.seconds
        self.warm_up: float = options.warm_up
        self.rounds: int = options.rounds
        self.awake: int = options.awake
        self.lanes: Path = options.lanes
        self.answers = self.output / "answers.npz"
        self._scratch = scratch

    def pace(self) -> tuple[object, ...]:
        """As options of a command."""
        return "--duration", self.seconds, "--warm-up", self.warm_up, "--rounds", self.rounds

    def repository(self, name: str, **models: tuple[str, int]) -> Path:
        """A model repository: model to its networks and lanes."""
        root = self._scratch / name
        for model, (networks, lanes) in models.items():
            files = (HERE / "lanes" / "model.py", self.lanes / "lane.py")
            parameters = {"networks": networks, "lanes": lanes, "awake": self.awake}
            add_model(root, model, HERE / "lanes" / "config.pbtxt", files, parameters)
        return root

    @asynccontextmanager
    async def triton(self, repository: Path, *models: str) -> AsyncIterator[str]:
        """A server with these models of a repository; its log stays in the output's folder."""
        logs = self.output / repository.name
        logs.mkdir(parents=True, exist_ok=True)
        async with running(repository, logs, models=models) as server:
            yield server.url


async def raw(setup: Setup) -> None:
    """In a process of its own, so that nothing of it stays on the GPU."""
    await _run(
        *(HERE / "raw.py", setup.output / "raw.json", "--answers", setup.answers, "--lanes", setup.lanes),
        *("--concurrency", _joined(IN_FLIGHT), "--awake", setup.awake, *setup.pace()),
    )


async def lanes(setup: Setup) -> None:
    """Profiles one process with lanes; its answers are held against those of the ceiling."""
    repository = setup.repository("lanes", **{NETWORK: (NETWORK, max(IN_FLIGHT))})
    async with setup.triton(repository, NETWORK) as url:
        await _profile(setup, url, "lanes", "--concurrency", _joined(IN_FLIGHT))
        if setup.answers.is_file():
            await _compare(url, setup.answers)


async def processes(setup: Setup) -> None:
    """Profiles processes with one lane each, with as many batches in flight."""
    async with setup.triton(setup.repository("processes", **{NETWORK: (NETWORK, 1)}), NETWORK) as url:
        for count in PROCESSES:
            await _profile(setup, url, "processes", "--instances", count, "--concurrency", count)


async def together(setup: Setup) -> None:
    """Both networks under load, each alone and at once."""
    most = max(TOGETHER)
    shared = setup.repository("one-process", both=(f"{NETWORK},{OTHER}", most))
    apart = setup.repository("a-process-each", **{NETWORK: (NETWORK, most), OTHER: (OTHER, most)})
    rows: list[dict[str, Any]] = []
    for repository, models in ((shared, ("both",)), (apart, (NETWORK, OTHER))):
        async with setup.triton(repository, *models) as url:
            rows += [row async for row in _pairs(setup, url, repository.name)]
    result = {
        "machine": this_machine().model_dump(mode="json"),
        "settings": {"batch": BATCH, "seconds": setup.seconds, "rounds": setup.rounds},
        "rows": rows,
    }
    (setup.output / "together.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


async def _pairs(setup: Setup, url: str, server: str) -> AsyncIterator[dict[str, Any]]:
    def asked(network: str) -> Asked:
        if server == "one-process":
            return Asked(url, "both", (BATCH,), max(TOGETHER), parameters={"network": network})
        return Asked(url, network, (BATCH,), max(TOGETHER))

    async with (
        TritonTarget.open(asked(NETWORK), print) as one,
        TritonTarget.open(asked(OTHER), print) as other,
        one.loaded(1) as first,
        other.loaded(1) as second,
    ):
        models = {NETWORK: first, OTHER: second}
        loads = [(k, names) for k in TOGETHER for names in ((NETWORK,), (OTHER,), (NETWORK, OTHER))]
        for number, (in_flight, names) in product(range(setup.rounds), loads):
            measured = await load_together(
                [ClosedLoop(models[name], BATCH, in_flight) for name in names], Pace(setup.seconds, setup.warm_up)
            )
            told = {name: each.model_dump() for name, each in zip(names, measured, strict=True)}
            rates = ", ".join(f"{name} {each['images_per_s']:,.0f}" for name, each in told.items())
            print(f"{server}, {in_flight} in flight each: {rates} images/s", flush=True)
            yield {"server": server, "round": number, "in_flight": in_flight, "networks": told}


async def _compare(url: str, answers: Path) -> None:
    """Raises where the server answers otherwise than the ceiling did."""
    client = TritonClient(url)
    try:
        kept = np.load(answers)
        for number in range(ANSWERED):
            pictures, expected = batch(number), kept[f"arr_{number}"]
            request = v2.ModelInferRequest(model_name=NETWORK)
            request.inputs.add(name="image", datatype="UINT8", shape=pictures.shape)
            request.raw_input_contents.append(pictures.tobytes())
            found = np.frombuffer((await client.infer(request)).raw_output_contents[0], np.float32)
            np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0.02, atol=0.02 * expected.std())
    finally:
        await client.close()
    print(f"{ANSWERED} batches answered as without a server", flush=True)


async def _profile(setup: Setup, url: str, name: str, *options: object) -> None:
    await _run(
        *("-m", "shoal", "profile", NETWORK, "--triton", url, "--batch", BATCH, "--no-plot"),
        *("--output", setup.output / name, *setup.pace(), *options),
    )


async def _run(*words: object) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, *map(str, words))
    if await process.wait():
        raise SystemExit(f"{' '.join(map(str, words[:3]))} failed")


def _joined(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


EXPERIMENTS = {"raw": raw, "lanes": lanes, "processes": processes, "together": together}


async def measure(setup: Setup, names: Sequence[str]) -> None:
    """Runs the experiments in turn; one that fails is told, and the others run."""
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        try:
            await EXPERIMENTS[name](setup)
        except (Exception, SystemExit) as error:
            print(f"{name}: {error}", flush=True)
            failed.append(name)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("output", type=Path)
    add_names(made, "experiment", EXPERIMENTS)
    made.add_argument("--server", type=Path)
    made.add_argument("--seconds", type=float, default=3.0)
    made.add_argument("--warm-up", type=float, default=5.0)
    made.add_argument("--rounds", type=int, default=2)
    made.add_argument("--awake", type=int, default=2, help="batches in flight up to which lanes look all the time")
    made.add_argument("--lanes", type=Path, default=HERE / "lanes", help="the folder of lane.py")
    return made


def main() -> None:
    """Measures, into the output's folder."""
    options = parser().parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        if options.server:
            use_unpacked(options.server, Path(scratch))
        asyncio.run(measure(Setup(options, Path(scratch)), options.experiments))


if __name__ == "__main__":
    main()
