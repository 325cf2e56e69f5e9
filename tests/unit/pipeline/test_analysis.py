"""One picture through a pipeline, with models that answer what a test says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from shoal.errors import Code, DeadlineExceeded, InvalidRequest, NotFound, Overloaded, ShoalError, Unavailable
from shoal.modelconfig.model import Task
from shoal.pipeline.analysis import Analysis, Asked, Running
from shoal.pipeline.calls import Caller
from shoal.pipeline.meter import Meter
from shoal.pipeline.steps import Mask, Step
from shoal.pipeline.times import PROBE_SECONDS, Times
from shoal.runtime.priority import Priority
from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

UUID = "4b5ef40f-1f6b-4b4f-9d52-1b8f6b7ab4a8"
CALLER = Caller("alice", "key-1", "identity", Priority.BULK, "trace")
SPECIES = Step("species", "species-model", Task.CLASSIFICATION, labels=frozenset({"bird"}))
OUTLINE = Step("outline", "outline-model", Task.SEGMENTATION)
PLATES = Step("plates", "plates-model", Task.DETECTION, labels=frozenset({"car"}), then=(OUTLINE,))
FIRST = Step("finder", "finder-model", Task.DETECTION, max_boxes=3, padding=0.5, then=(SPECIES, PLATES))
BIRD = pb.Box(x=0.1, y=0.1, width=0.2, height=0.2, label="bird", score=0.9)
CAR = pb.Box(x=0.5, y=0.5, width=0.4, height=0.4, label="car", score=0.8)
PLATE = pb.Box(x=0.6, y=0.6, width=0.1, height=0.1, label="plate", score=0.7)


@dataclass
class Models:
    """Answers by step; counts the calls, and can be slow on a clock of its own."""

    boxes: list[pb.Box]
    now: float = 100.0
    takes: dict[str, float] = field(default_factory=dict)
    failing: dict[str, Callable[[pb.ImageRequest], ShoalError | None]] = field(default_factory=dict)
    asked: list[tuple[str, pb.ImageRequest, float, str]] = field(default_factory=list)
    callers: list[Caller] = field(default_factory=list)
    gate: asyncio.Event | None = None
    left: int = 0

    async def __call__(
        self, step: Step, request: pb.ImageRequest, caller: Caller, deadline: float, affinity: str
    ) -> object:
        self.asked.append((step.name, request, deadline, affinity))
        self.callers.append(caller)
        if self.gate is not None and step is not FIRST:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.left += 1
                raise
        self.now += self.takes.get(step.name, 0.0)
        if (fail := self.failing.get(step.name)) and (error := fail(request)):
            raise error
        return self._reply(step)

    def _reply(self, step: Step) -> pb.DetectReply | pb.ClassifyReply | pb.SegmentReply:
        timing = pb.Timing(batch_size=len(self.asked))
        if step is FIRST:
            return pb.DetectReply(boxes=self.boxes, model_version=1, timing=timing)
        if step is PLATES:
            return pb.DetectReply(boxes=[PLATE], model_version=2, timing=timing)
        if step is OUTLINE:
            return pb.SegmentReply(mask_png=b"png", model_version=3, timing=timing)
        return pb.ClassifyReply(classes=[pb.Class(label="robin", probability=0.9)], model_version=4, timing=timing)

    @property
    def steps(self) -> list[str]:
        return [step for step, *_ in self.asked]


@pytest.fixture
def models() -> Models:
    return Models([BIRD, CAR])


@pytest.fixture
def running(models: Models) -> Running:
    return Running("street", FIRST, models, Times(FIRST), Meter("street"), lambda: models.now)


def asked(seconds: float = 10.0, **fields: object) -> Asked:
    return Asked(UUID, CALLER, 100.0 + seconds, Mask(pb.MASK_FORM_RUNS), **fields)


async def test_boxes_come_with_what_each_step_says_of_them(running: Running, models: Models) -> None:
    reply = await Analysis(running, asked()).run()
    assert (reply.image_uuid, reply.model_name) == (UUID, "street")
    bird, car = reply.findings
    assert (bird.box, car.box) == (BIRD, CAR)
    assert [(each.step, each.model_name, each.model_version, each.code) for each in bird.results] == [
        ("species", "species-model", 4, 0)
    ]
    assert bird.results[0].classes[0].label == "robin"
    (plates,) = car.results
    assert plates.findings[0].box == PLATE
    assert plates.findings[0].results[0].mask.mask_png == b"png"
    assert models.steps == ["finder", "species", "plates", "outline"]


async def test_regions_are_the_boxes_and_the_caller_and_the_affinity_go_along(running: Running, models: Models) -> None:
    await Analysis(running, asked(region=pb.PictureRegion(width=1, height=0.5))).run()
    requests = {step: request for step, request, *_ in models.asked}
    assert requests["finder"].region == pb.PictureRegion(width=1, height=0.5)
    assert requests["species"].region == FIRST.region(BIRD)
    assert requests["outline"].region == PLATES.region(PLATE)
    assert requests["outline"].mask_form == pb.MASK_FORM_RUNS
    assert {affinity for *_, affinity in models.asked} == {UUID}
    assert set(models.callers) == {CALLER}


async def test_each_step_tells_its_calls_and_its_time(running: Running, models: Models) -> None:
    models.takes = {"finder": 0.5, "species": 0.25}
    reply = await Analysis(running, asked()).run()
    told = [(each.step, each.calls, each.failed, each.total_us) for each in reply.steps]
    assert told[:2] == [("finder", 1, 0, 500_000), ("species", 1, 0, 250_000)]
    assert [each.step for each in reply.steps] == ["finder", "species", "plates", "outline"]
    assert reply.steps[0].timing.batch_size == 1


async def test_a_picture_without_a_box_costs_the_detector_alone(running: Running, models: Models) -> None:
    models.boxes = []
    reply = await Analysis(running, asked()).run()
    assert models.steps == ["finder"]
    assert not reply.findings
    assert [each.calls for each in reply.steps] == [1, 0, 0, 0]


async def test_of_many_boxes_the_best_are_looked_at(running: Running, models: Models) -> None:
    models.boxes = [pb.Box(width=0.1, height=0.1, label="bird", score=n / 100) for n in range(50)]
    reply = await Analysis(running, asked()).run()
    assert [round(each.box.score * 100) for each in reply.findings] == [49, 48, 47]
    assert models.steps.count("species") == 3


@pytest.mark.parametrize("error", [NotFound("no such image"), Unavailable("the store is away"), Overloaded("full")])
async def test_the_first_steps_failure_is_the_whole_answer(running: Running, models: Models, error: ShoalError) -> None:
    models.failing["finder"] = lambda _: error
    with pytest.raises(type(error), match=str(error)):
        await Analysis(running, asked()).run()
    assert models.steps == ["finder"]


async def test_a_part_that_fails_fails_alone(running: Running, models: Models) -> None:
    models.boxes = [BIRD, pb.Box(x=0.7, y=0.1, width=0.2, height=0.2, label="bird", score=0.5), CAR]
    models.failing["species"] = lambda asked: InvalidRequest("too small") if asked.region.x > 0.6 else None
    reply = await Analysis(running, asked()).run()
    codes = [[(each.code, each.message) for each in finding.results] for finding in reply.findings]
    assert codes == [[(0, "")], [(0, "")], [(Code.INVALID_ARGUMENT, "too small")]]
    assert (reply.steps[1].calls, reply.steps[1].failed) == (2, 1)


async def test_a_fault_of_ours_is_told_without_its_text(running: Running, models: Models) -> None:
    def broken(_: pb.ImageRequest) -> ShoalError | None:
        raise RuntimeError("secret")

    models.failing["species"] = broken
    reply = await Analysis(running, asked()).run()
    result = reply.findings[0].results[0]
    assert result.code == Code.INTERNAL
    assert "secret" not in result.message


async def test_what_later_steps_take_is_taken_off_the_first_ones_deadline(running: Running, models: Models) -> None:
    times = running.times.of(CALLER.owner, CALLER.priority)
    times.observe(SPECIES, models.now, 0.5, 1)
    times.observe(PLATES, models.now, 1.0, 1)
    times.observe(OUTLINE, models.now, 2.0, 1)
    await Analysis(running, asked(10)).run()
    deadlines = {step: round(deadline - 100, 3) for step, _, deadline, _ in models.asked}
    # 0.1 s before the caller's, so that the answer gets there though one part has none.
    assert deadlines == {"finder": 6.25, "species": 9.9, "plates": 7.4, "outline": 9.9}


async def test_of_a_short_deadline_the_way_back_takes_a_twentieth(running: Running, models: Models) -> None:
    await Analysis(running, asked(1)).run()
    assert {round(deadline - 100, 3) for step, _, deadline, _ in models.asked if step != "finder"} == {0.95}


async def test_who_can_not_make_it_is_refused_before_anything_is_asked(running: Running, models: Models) -> None:
    times = running.times.of(CALLER.owner, CALLER.priority)
    times.observe(SPECIES, models.now, 3.0, 1)
    analysis = Analysis(running, asked(1))
    with pytest.raises(
        DeadlineExceeded, match=r"the steps of 'street' need 3.75 s, as they went lately; 1.00 s are left"
    ):
        await analysis.run()
    assert models.steps == []
    assert not analysis.tells


async def test_after_a_while_one_is_tried_all_the_same(running: Running, models: Models) -> None:
    running.times.of(CALLER.owner, CALLER.priority).observe(SPECIES, models.now, 3.0, 1)
    models.now += PROBE_SECONDS
    await Analysis(running, asked(1)).run()
    assert models.steps.count("finder") == 1


async def test_a_part_that_can_not_make_it_is_answered_without_a_call(running: Running, models: Models) -> None:
    models.takes = {"finder": 1.0}
    reply = await Analysis(running, asked(0.5)).run()
    assert models.steps == ["finder"]
    results = [result for finding in reply.findings for result in finding.results]
    assert [result.code for result in results] == [Code.DEADLINE_EXCEEDED, Code.DEADLINE_EXCEEDED]
    assert "before this part of the picture" in results[0].message
    assert [each.calls for each in reply.steps] == [1, 0, 0, 0]


async def test_what_a_batcher_says_is_ahead_of_a_step_is_learned(running: Running, models: Models) -> None:
    models.failing["species"] = lambda _: Overloaded("try later", retry_after_seconds=4.0)
    await Analysis(running, asked()).run()
    assert running.times.of(CALLER.owner, CALLER.priority).behind(FIRST, 1) == pytest.approx(5.0, rel=0.1)


async def test_a_part_that_fails_for_another_reason_teaches_nothing(running: Running, models: Models) -> None:
    models.takes = {"species": 4.0}
    models.boxes = [BIRD]
    models.failing["species"] = lambda _: NotFound("gone")
    await Analysis(running, asked()).run()
    assert running.times.of(CALLER.owner, CALLER.priority).behind(FIRST, 1) == 0


@pytest.mark.parametrize(("left", "learned"), [(5.0, 0.0), (0.01, 2.5)], ids=["early", "out of time"])
async def test_a_caller_who_leaves_early_teaches_nothing(
    running: Running, models: Models, left: float, learned: float
) -> None:
    models.boxes, models.gate = [BIRD], asyncio.Event()
    task = asyncio.create_task(Analysis(running, asked(2.0 + left)).run())
    while len(models.asked) < 2:
        await asyncio.sleep(0)
    models.now += 2.0
    task.cancel()
    await asyncio.wait([task])
    assert running.times.of(CALLER.owner, CALLER.priority).behind(FIRST, 1) == pytest.approx(learned, abs=2.0)
    assert bool(running.times.of(CALLER.owner, CALLER.priority).behind(FIRST, 1)) is bool(learned)


async def test_a_caller_who_leaves_takes_the_inner_calls_along(running: Running, models: Models) -> None:
    models.gate = asyncio.Event()
    task = asyncio.create_task(Analysis(running, asked()).run())
    while len(models.asked) < 3:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert models.left == 2
