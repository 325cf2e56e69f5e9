"""What answers pictures, started and ready: Shoal or a peer."""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import cpu
from benchmarks.common.service import running
from benchmarks.peers import process
from benchmarks.peers.servers.plan import VARIABLE, Choice, Plan
from benchmarks.peers.settings import OBJECTS
from shoal.errors import DeadlineExceeded, Internal, NotFound, Unavailable
from shoal.local.process import tail
from shoal.modelconfig.model import Task
from shoal.runtime.ports import FreePorts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from benchmarks.common.cpu import Snapshot
    from benchmarks.peers.peer import Peer
    from benchmarks.peers.pictures import Picture, Size
    from shoal.client.load.generator import LoadClient
    from shoal.client.results import Class, Image
    from shoal.modelconfig.model import ModelConfig
    from shoal.service.home import Home

READY_SECONDS = 180.0
_TRY_SECONDS = 10.0
_PAUSE_SECONDS = 0.1
_PORTS = FreePorts()
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Job:
    """The work, the same for all."""

    home: Home
    """Of Shoal; its model store has the model."""
    model: ModelConfig
    precision: str
    pictures: dict[Size, list[Picture]]
    references: dict[tuple[Size, str], list[int]]
    """By picture size and decoder: each picture's most probable class, found in this process."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that answers."""

    connect: Callable[[], AbstractAsyncContextManager[LoadClient]]
    images: Sequence[Image]
    """Sent in turn; the first are the job's pictures, in their order."""
    snapshot: Callable[[], Snapshot]
    model: str
    told: dict[str, Any] = field(default_factory=dict)
    """How it ran, ready for JSON."""


@contextmanager
def of_peer(peer: Peer, choice: Choice, job: Job, size: Size, decoder: str) -> Iterator[Target]:
    """A peer's server, from its start to its end."""
    with tempfile.TemporaryDirectory(prefix="sp-") as folder:
        scratch = Path(folder)
        port = _PORTS().port
        plan = Plan(job.model, decoder, job.precision, str(job.home.cache / "openvino"), choice, port, folder)
        plan.write(scratch / "plan.pickle")
        launch = peer.launch(plan)
        variables = {**launch.variables, VARIABLE: str(scratch / "plan.pickle")}
        images = [picture.data for picture in job.pictures[size]]
        with (
            _without(launch.shared_memory),
            process.started(launch.command, variables, scratch / "server.log") as server,
        ):
            started = time.monotonic()
            asyncio.run(_wait(server, peer, port, images[0], job.model.name))
            yield Target(
                lambda: peer.connect(port),
                images,
                lambda: cpu.of_server(server.pid),
                job.model.name,
                {"choice": choice.name, "start_s": round(time.monotonic() - started, 2)},
            )


@contextmanager
def _without(prefix: str) -> Iterator[None]:
    """Removes the regions of shared memory that are left at the end."""
    try:
        yield
    finally:
        for region in _SHARED_MEMORY.glob(f"{prefix}*") if prefix else ():
            region.unlink(missing_ok=True)


async def _wait(server: process.Server, peer: Peer, port: int, picture: bytes, model: str) -> None:
    """Until it answers. Nobody tells when a foreign server is ready, so it is asked again and again."""
    last = "it was never reached"
    try:
        async with asyncio.timeout(READY_SECONDS), peer.connect(port) as caller:
            while True:
                server.check()
                try:
                    await caller.infer(Task.CLASSIFICATION, picture, model, timeout_seconds=_TRY_SECONDS)
                except (Unavailable, DeadlineExceeded, NotFound) as error:
                    last = str(error)
                else:
                    return
                await asyncio.sleep(_PAUSE_SECONDS)
    except TimeoutError:
        log = tail(server.log)
        raise Unavailable(f"{peer.title} didn't answer within {READY_SECONDS:g} s: {last}\n{log}") from None


@contextmanager
def of_shoal(job: Job, size: Size, *, upload: bool) -> Iterator[Target]:
    """The default service; with pictures in its store, or with each uploaded by its own request."""
    pictures = [picture.data for picture in job.pictures[size]]
    with running(job.home) as service:

        async def stored() -> list[str]:
            async with service.client() as uploader:
                return await uploader.upload_many(list(islice(cycle(pictures), OBJECTS[size])))

        images: Sequence[Image] = pictures if upload else asyncio.run(stored())
        told = {"start_s": round(service.start_seconds, 2)}
        yield Target(service.client, images, lambda: cpu.of_service(service), job.model.name, told)


async def check(target: Target, references: Sequence[int]) -> None:
    """Sends each picture once and compares the most probable class.

    Raises:
        Internal: an answer is wrong.
    """
    async with target.connect() as caller:
        for number, (image, expected) in enumerate(zip(target.images, references, strict=False)):
            found = await caller.infer(Task.CLASSIFICATION, image, target.model, timeout_seconds=READY_SECONDS)
            answered: Sequence[Class] = getattr(found, "classes", ())
            if len(answered) != 5 or answered[0].index != expected:
                raise Internal(f"picture {number}: expected class {expected} and four others; got {answered}")
