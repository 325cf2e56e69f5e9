"""One picture through a pipeline, with models that answer what a test says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from shoal.errors import (
    Code,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    Overloaded,
    ShoalError,
    Unavailable,
    to_status,
)
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
    failing: dict[str, Callable[[pb.PictureRegion], ShoalError | None]] = field(default_factory=dict)
    """Of one part."""
    refusing: dict[str, ShoalError] = field(default_factory=dict)
    """Calls."""
    asked: list[tuple[str, pb.ImageRequest, float, str]] = field(default_factory=list)
    callers: list[Caller] = field(default_factory=list)
    gate: asyncio.Event | None = None
    left: int = 0

    async def __call__(
        self, step: Step, request: pb.ImageRequest, caller: Caller, deadline: float, affinity: str
    ) -> object:
        self.asked.append((step.name, request, deadline, affinity))
        self.callers.append(caller)
        if self.gate is not None and step.name != FIRST.name:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.left += 1
                raise
        self.now += self.takes.get(step.name, 0.0)
        if error := self.refusing.get(step.name):
            raise error
        if not request.regions:
            if error := self._error(step, request.region):
                raise error
            return self._reply(step, request.region)
        whole = self._reply(step, request.region)
        whole.Clear()
        for region in request.regions:
            told = whole.region_replies.add()
            if error := self._error(step, region):
                told.code, told.message = to_status(error)
            else:
                told.reply.CopyFrom(self._reply(step, region))
        return whole

    def _error(self, step: Step, region: pb.PictureRegion) -> Exception | None:
        return fail(region) if (fail := self.failing.get(step.name)) else None

    def _reply(self, step: Step, region: pb.PictureRegion) -> pb.DetectReply | pb.ClassifyReply | pb.SegmentReply:
        timing = pb.Timing(batch_size=len(self.asked))
        if step.name == FIRST.name:
            return pb.DetectReply(boxes=self.boxes, model_version=1, timing=timing)
        if step.name == PLATES.name:
            return pb.DetectReply(boxes=[PLATE], model_version=2, timing=timing)
        if step.name == OUTLINE.name:
            return pb.SegmentReply(mask_png=b"png", model_version=3, timing=timing)
        seen = pb.Class(label="robin", index=round(100 * region.x))
        return pb.ClassifyReply(classes=[seen], model_version=4, timing=timing)

    @property
    def steps(self) -> list[str]:
        """Of each call."""
        return [step for step, *_ in self.asked]

    def parts(self, step: Step) -> list[int]:
        """In each call of ``step`` about several."""
        return [len(request.regions) for name, request, *_ in self.asked if name == step.name]


@pytest.fixture
def models() -> Models:
    return Models([BIRD, CAR])


@pytest.fixture
def running(models: Models) -> Running:
    return Running("street", FIRST, models, Times(FIRST), Meter("street"), lambda: models.now)


def asked(seconds: float = 10.0, **fields: object) -> Asked:
    return Asked(UUID, CALLER, 100.0 + seconds, Mask(pb.MASK_FORM_RUNS), **fields)


async def test_each_step_may_see_what_the_store_had_since_the_first_began(running: Running, models: Models) -> None:
    models.takes = {"finder": 2.0, "plates": 1.0}
    await Analysis(running, asked(max_age_us=500_000)).run()
    ages = {step: request.max_age_us for step, request, *_ in models.asked}
    assert ages == {"finder": 500_000, "species": 2_500_000, "plates": 2_500_000, "outline": 3_500_000}


async def test_a_picture_may_be_as_old_as_a_caller_can_say(running: Running, models: Models) -> None:
    models.takes = {"finder": 2.0}
    await Analysis(running, asked(max_age_us=2**64 - 1)).run()
    assert [request.max_age_us for _, request, *_ in models.asked] == [2**64 - 1] * 4


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
    assert models.parts(SPECIES) == [3]
    assert reply.steps[1].calls == 3


def birds(count: int) -> list[pb.Box]:
    """Of falling score, each at its own place: a hundredth of the picture further to the right."""
    return [pb.Box(x=n / 100, width=0.1, height=0.1, label="bird", score=1 - n / 100) for n in range(count)]


def every(running: Running) -> Running:
    """Keeps all boxes, and asks about eight in one call."""
    species, plates = (replace(step, most_parts=8) for step in FIRST.then)
    plates = replace(plates, then=tuple(replace(step, most_parts=8) for step in plates.then))
    first = replace(FIRST, max_boxes=100, then=(species, plates))
    return replace(running, first=first, times=Times(first))


@pytest.mark.parametrize(("count", "sizes"), [(1, [0]), (2, [2]), (8, [8]), (9, [5, 4]), (30, [8, 8, 7, 7])])
async def test_parts_are_asked_about_in_few_calls_and_each_has_its_own_answer(
    running: Running, models: Models, count: int, sizes: list[int]
) -> None:
    models.boxes = birds(count)
    reply = await Analysis(every(running), asked()).run()
    assert [finding.results[0].classes[0].index for finding in reply.findings] == list(range(count))
    assert models.parts(SPECIES) == sizes
    assert (reply.steps[1].calls, reply.steps[1].failed) == (count, 0)
    for step, request, *_ in models.asked:
        assert (request.HasField("region"), request.image_uuid) == (step == "species" and count == 1, UUID)


async def test_what_follows_from_the_parts_of_one_call_goes_together(running: Running, models: Models) -> None:
    models.boxes = [CAR] * 9 + [BIRD] * 2
    reply = await Analysis(every(running), asked()).run()
    assert (models.parts(SPECIES), models.parts(PLATES), models.parts(OUTLINE)) == ([2], [5, 4], [5, 4])
    masks = [each.results[0].findings[0].results[0].mask.mask_png for each in reply.findings if each.box.label == "car"]
    assert masks == [b"png"] * 9


async def test_a_part_that_is_unavailable_is_asked_about_again_alone_and_holds_up_no_other(
    running: Running, models: Models
) -> None:
    def fail(region: pb.PictureRegion) -> ShoalError | None:
        number, first = round(100 * region.x), models.steps.count("species") == 1
        failures = {1: InvalidRequest("too small"), 4: DeadlineExceeded("late")}
        return Unavailable("gone") if (number == 3 and first) or number == 6 else failures.get(number)

    models.boxes, models.failing["species"] = birds(8), fail
    reply = await Analysis(every(running), asked()).run()
    results = [finding.results[0] for finding in reply.findings]
    wrong = {number: result.message for number, result in enumerate(results) if result.code}
    assert wrong == {1: "too small", 4: "late", 6: "gone"}
    assert results[3].classes[0].index == 3
    assert models.parts(SPECIES) == [8, 0, 0]
    assert [round(100 * request.region.x) for step, request, *_ in models.asked[2:]] == [3, 6]
    assert {deadline for step, _, deadline, _ in models.asked if step == "species"} == {109.9}
    assert (reply.steps[1].calls, reply.steps[1].failed) == (8, 3)


async def test_what_becomes_of_a_call_becomes_of_its_parts(running: Running, models: Models) -> None:
    models.boxes, models.refusing["species"] = birds(3), Overloaded("full", retry_after_seconds=4.0)
    reply = await Analysis(running, asked()).run()
    codes = [(result.code, result.message) for finding in reply.findings for result in finding.results]
    assert codes == [(Code.RESOURCE_EXHAUSTED, "full")] * 3
    assert models.parts(SPECIES) == [3]
    assert (reply.steps[1].calls, reply.steps[1].failed) == (3, 3)


@pytest.mark.parametrize("error", [NotFound("no such image"), Unavailable("the store is away"), Overloaded("full")])
async def test_the_first_steps_failure_is_the_whole_answer(running: Running, models: Models, error: ShoalError) -> None:
    models.failing["finder"] = lambda _: error
    with pytest.raises(type(error), match=str(error)):
        await Analysis(running, asked()).run()
    assert models.steps == ["finder"]


async def test_a_part_that_fails_fails_alone(running: Running, models: Models) -> None:
    models.boxes = [BIRD, pb.Box(x=0.7, y=0.1, width=0.2, height=0.2, label="bird", score=0.5), CAR]
    models.failing["species"] = lambda region: InvalidRequest("too small") if region.x > 0.6 else None
    reply = await Analysis(running, asked()).run()
    codes = [[(each.code, each.message) for each in finding.results] for finding in reply.findings]
    assert codes == [[(0, "")], [(0, "")], [(Code.INVALID_ARGUMENT, "too small")]]
    assert (reply.steps[1].calls, reply.steps[1].failed) == (2, 1)


async def test_a_fault_of_ours_is_told_without_its_text(running: Running, models: Models) -> None:
    def broken(_: pb.PictureRegion) -> ShoalError | None:
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
