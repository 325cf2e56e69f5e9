"""Parts of a picture in one call."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from shoal.errors import Code, DeadlineExceeded, Internal, InvalidRequest, Overloaded, ShoalError
from shoal.modelconfig.model import Task
from shoal.pipeline.calls import Caller
from shoal.pipeline.steps import Mask, Step
from shoal.pipeline.together import MOST_PARTS, TogetherCalls
from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

CALLER = Caller("alice", "key-1", "identity")
SPECIES = Step("species", "species-model", Task.CLASSIFICATION, top_k=3)
UUID = "4b5ef40f-1f6b-4b4f-9d52-1b8f6b7ab4a8"


@dataclass
class Worker:
    """Names each part by its place."""

    asked: list[tuple[pb.ImageRequest, float]] = field(default_factory=list)
    codes: Mapping[float, Code] = field(default_factory=dict)
    """Of parts in calls with others."""
    error: ShoalError | None = None
    gate: asyncio.Event | None = None
    left: int = 0

    async def __call__(
        self, step: Step, request: pb.ImageRequest, caller: Caller, deadline: float, affinity: str
    ) -> Any:
        assert (step.model, caller.owner, affinity) == (request.model_name, "alice", UUID)
        self.asked.append((request, deadline))
        if self.gate:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.left += 1
                raise
        if self.error:
            raise self.error
        if not request.regions:
            return self._reply(request.region)
        parts = [
            pb.ClassifyRegionReply(code=code, message=f"part {region.x:g}")
            if (code := self.codes.get(round(region.x, 3)))
            else pb.ClassifyRegionReply(reply=self._reply(region))
            for region in request.regions
        ]
        return pb.ClassifyReply(region_replies=parts)

    def _reply(self, region: pb.PictureRegion) -> pb.ClassifyReply:
        return pb.ClassifyReply(classes=[pb.Class(label=f"{region.x:g}")], model_version=2)

    @property
    def sizes(self) -> list[int]:
        return [len(request.regions) for request, _ in self.asked]


def part(number: int, step: Step = SPECIES, uuid: str = UUID, mask: Mask | None = None) -> pb.ImageRequest:
    region = pb.PictureRegion(x=number / 100, width=0.1, height=0.1, padding=0.5)
    return step.request(uuid, mask or Mask(), region)


async def ask(worker: Worker, *requests: pb.ImageRequest, step: Step = SPECIES, deadline: float = 9.0) -> list[Any]:
    calls = TogetherCalls(worker)
    asked = (calls(step, request, CALLER, deadline, UUID) for request in requests)
    return await asyncio.gather(*asked, return_exceptions=True)


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [0]), (2, [2]), (MOST_PARTS, [8]), (MOST_PARTS + 1, [5, 4]), (30, [8, 8, 7, 7])]
)
async def test_each_part_has_its_own_answer(count: int, sizes: list[int]) -> None:
    worker = Worker()
    told = await ask(worker, *map(part, range(count)))
    assert [(reply.classes[0].label, reply.model_version) for reply in told] == [
        (f"{number / 100:g}", 2) for number in range(count)
    ]
    assert worker.sizes == sizes
    for request, deadline in worker.asked:
        assert (request.image_uuid, request.model_name, request.top_k, deadline) == (UUID, "species-model", 3, 9.0)
        assert bool(request.regions) != request.HasField("region")
        assert all(region.padding == 0.5 for region in request.regions)


async def test_whole_pictures_and_others_pictures_go_alone() -> None:
    worker = Worker()
    outline = Step("outline", "outline-model", Task.SEGMENTATION)
    other = replace(SPECIES, name="other", top_k=1)
    calls = TogetherCalls(worker)
    whole = SPECIES.request(UUID, Mask(), None)
    await asyncio.gather(
        calls(SPECIES, whole, CALLER, 9.0, UUID),
        calls(SPECIES, part(1), CALLER, 9.0, UUID),
        calls(SPECIES, part(2, uuid="another"), CALLER, 9.0, UUID),
        calls(other, part(3, step=other), CALLER, 9.0, UUID),
        calls(SPECIES, part(4), CALLER, 5.0, UUID),
        calls(outline, part(5, step=outline), CALLER, 9.0, UUID),
        calls(outline, part(5, step=outline, mask=Mask(pb.MASK_FORM_RUNS)), CALLER, 9.0, UUID),
        calls(SPECIES, part(6), replace(CALLER, identity="bob"), 9.0, UUID),
    )
    assert worker.sizes == [0] * 8


async def test_a_part_that_fails_fails_alone_and_one_that_is_unavailable_is_asked_for_again() -> None:
    worker = Worker(codes={0.01: Code.INVALID_ARGUMENT, 0.03: Code.UNAVAILABLE, 0.04: Code.DEADLINE_EXCEEDED})
    told = await ask(worker, *map(part, range(5)))
    assert isinstance(told[1], InvalidRequest)
    assert str(told[1]) == "part 0.01"
    assert isinstance(told[4], DeadlineExceeded)
    assert [told[number].classes[0].label for number in (0, 2, 3)] == ["0", "0.02", "0.03"]
    assert worker.sizes == [5, 0]
    assert worker.asked[1][0].region == part(3).region


async def test_what_becomes_of_the_call_becomes_of_its_parts() -> None:
    worker = Worker(error=Overloaded("full", retry_after_seconds=3))
    told = await ask(worker, *map(part, range(3)))
    assert [(type(error), error.retry_after_seconds) for error in told] == [(Overloaded, 3)] * 3
    assert worker.sizes == [3]
    worker.error = Internal("broken")
    assert [type(error) for error in await ask(worker, part(0), part(1))] == [Internal] * 2


async def test_a_call_that_nobody_waits_for_is_withdrawn() -> None:
    worker = Worker(gate=asyncio.Event())
    calls = TogetherCalls(worker)
    tasks = [asyncio.ensure_future(calls(SPECIES, part(number), CALLER, 9.0, UUID)) for number in range(3)]
    while not worker.asked:
        await asyncio.sleep(0)
    for task in tasks[:2]:
        task.cancel()
    await asyncio.gather(*tasks[:2], return_exceptions=True)
    await asyncio.sleep(0)
    assert not worker.left, "one waits still"
    tasks[2].cancel()
    await asyncio.gather(tasks[2], return_exceptions=True)
    while calls._running:
        await asyncio.sleep(0)
    assert worker.left == 1


async def test_parts_that_left_before_are_not_asked_about() -> None:
    worker = Worker()
    calls = TogetherCalls(worker)
    tasks = [asyncio.ensure_future(calls(SPECIES, part(number), CALLER, 9.0, UUID)) for number in range(4)]
    asyncio.get_running_loop().call_soon(tasks[0].cancel)
    tasks[1].cancel()
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, asyncio.CancelledError) for each in told] == [True, True, False, False]
    assert sum(worker.sizes) == 2
    assert not calls._waiting
