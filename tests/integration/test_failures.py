"""Parts that die, stop or hang while the SDK has requests in flight: every one of them is answered."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from shoal.client import AsyncClient
from shoal.errors import DeadlineExceeded
from support.pictures import encode
from support.stack import Stack, running_stack
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from shoal.local.state import PartState

WORKER, BATCHER, STORE = "worker-default-1", "batcher-shared-1", "store"
CALLERS = 8
PICTURES = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250), "grey": (99, 99, 99)}
FILES = {label: encode(Image.new("RGB", (64, 48), colour)) for label, colour in PICTURES.items()}
SEEN_BY_WORKER = ("shoal_worker_requests_total", "shoal_worker_fetch_seconds_count")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("failures") / "home", models=add_tiny_classifier) as running:
        yield running


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(stack.target, api_key=stack.api_key, timeout_seconds=60) as made:
        yield made


class Load:
    """Callers that go on and on. Half of them upload a picture each time."""

    def __init__(self, client: AsyncClient, uuids: dict[str, str]) -> None:
        self._client = client
        self._uuids = uuids
        self._over = False
        self._answers: asyncio.Queue[None] = asyncio.Queue()

    async def more(self, count: int) -> None:
        """Waits for so many more answers."""
        for _ in range(self._answers.qsize() + count):
            await self._answers.get()

    def end(self) -> None:
        """Each caller's request is its last."""
        self._over = True

    async def caller(self, number: int) -> None:
        label = list(PICTURES)[number % len(PICTURES)]
        image = FILES[label] if number < CALLERS / 2 else self._uuids[label]
        while not self._over:
            answer = await self._client.classify(image, "tiny")
            assert answer.classes[0].label == label
            self._answers.put_nowait(None)


@asynccontextmanager
async def load(client: AsyncClient) -> AsyncIterator[Load]:
    """Load that must not see a single failure until its end."""
    running = Load(client, {label: await client.upload(file) for label, file in FILES.items()})
    async with asyncio.TaskGroup() as callers:
        for number in range(CALLERS):
            callers.create_task(running.caller(number))
        await running.more(CALLERS)
        yield running
        running.end()


@contextmanager
def stopped(part: PartState) -> Iterator[None]:
    """A part that hangs: it accepts connections and answers nothing."""
    assert part.pid
    os.kill(part.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(part.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("name", "how"),
    [(WORKER, signal.SIGKILL), (STORE, signal.SIGKILL), (WORKER, signal.SIGTERM), (BATCHER, signal.SIGTERM)],
    ids=lambda value: str(getattr(value, "name", value)),
)
async def test_no_request_fails_when_a_part_goes(
    stack: Stack, client: AsyncClient, name: str, how: signal.Signals
) -> None:
    async with load(client) as running:
        before = stack.part(name)
        assert before.pid
        os.kill(before.pid, how)
        await stack.restarted(before)
        await running.more(5 * CALLERS)


async def test_nothing_is_fetched_for_a_deadline_that_passed_in_the_queue(stack: Stack, client: AsyncClient) -> None:
    uuids = {label: await client.upload(file) for label, file in FILES.items()}
    assert (await client.classify(uuids["red"], "tiny")).classes[0].label == "red"
    before = [await stack.metric(WORKER, name) for name in SEEN_BY_WORKER]
    with stopped(stack.part(WORKER)):
        # The load balancer leaves a worker that hangs, so nobody holds a permit.
        await stack.until_metric(BATCHER, "shoal_batcher_streams", 0, state="permitted")
        mates = [asyncio.ensure_future(client.classify(uuids[label], "tiny")) for label in ("green", "blue")]
        with pytest.raises(DeadlineExceeded):
            await client.classify(uuids["grey"], "tiny", timeout_seconds=0.3)
    answers = await asyncio.gather(*mates)
    assert [answer.classes[0].label for answer in answers] == ["green", "blue"]
    after = [await stack.metric(WORKER, name) for name in SEEN_BY_WORKER]
    assert after == [count + len(answers) for count in before]


async def test_an_answer_comes_in_time_even_if_the_store_hangs(stack: Stack, client: AsyncClient) -> None:
    image_uuid = await client.upload(FILES["blue"])
    with stopped(stack.part(STORE)), pytest.raises(DeadlineExceeded):
        await client.classify(image_uuid, "tiny", timeout_seconds=0.5)
    assert (await client.classify(image_uuid, "tiny")).classes[0].label == "blue"
