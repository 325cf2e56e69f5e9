from __future__ import annotations

import pytest

from shoal.errors import Code, DeadlineExceeded, NotFound, Overloaded
from shoal.modelconfig.model import Task
from shoal.pipeline.steps import Step
from shoal.pipeline.tally import Tallies
from shoal.v1 import inference_pb2 as pb

SPECIES = Step("species", "species-model", Task.CLASSIFICATION)
FIRST = Step("finder", "finder-model", Task.DETECTION, then=(SPECIES,))


class Counting:
    """Stands for the pipeline's metrics, and for its clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[tuple[str, Code, int]] = []

    def clock(self) -> float:
        return self.now

    def called(self, step: Step, code: Code, parts: int) -> None:
        self.told.append((step.name, code, parts))


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
def tallies(counting: Counting) -> Tallies:
    return Tallies(FIRST, counting, counting.clock)


def test_a_step_takes_from_its_first_part_to_its_last_answer(tallies: Tallies, counting: Counting) -> None:
    tallies.begin(SPECIES, 8)
    counting.now += 0.25
    tallies.begin(SPECIES, 2)
    tallies.succeed(SPECIES, pb.ClassifyReply(timing=pb.Timing(batch_size=1)), 8)
    counting.now += 0.5
    tallies.succeed(SPECIES, pb.ClassifyReply(timing=pb.Timing(batch_size=2)), 2)
    assert tallies.of(SPECIES).told() == pb.StepTiming(
        step="species", model_name="species-model", calls=10, total_us=750_000, timing=pb.Timing(batch_size=2)
    )
    assert counting.told == [("species", Code.OK, 8), ("species", Code.OK, 2)]


@pytest.mark.parametrize(
    ("error", "late", "ahead"),
    [(NotFound("gone"), False, 0.0), (DeadlineExceeded("late"), True, 0.0), (Overloaded("full", 4.0), True, 4.0)],
)
def test_parts_that_fail_are_counted_by_their_code(
    tallies: Tallies, counting: Counting, error: NotFound | DeadlineExceeded | Overloaded, late: bool, ahead: float
) -> None:
    tallies.begin(SPECIES, 3)
    tallies.fail(SPECIES, error, 3)
    tally = tallies.of(SPECIES)
    assert (tally.calls, tally.failed, tally.late, tally.ahead) == (3, 3, late, ahead)
    assert counting.told == [("species", error.code, 3)]


@pytest.mark.parametrize("late", [False, True])
def test_whoever_waits_no_longer_may_have_run_out_of_time(tallies: Tallies, counting: Counting, late: bool) -> None:
    tallies.begin(SPECIES, 2)
    tallies.withdraw(SPECIES, 2, late=late)
    assert (tallies.of(SPECIES).failed, tallies.of(SPECIES).late) == (2, late)
    assert counting.told == [("species", Code.CANCELLED, 2)]


def test_a_step_without_an_answer_has_taken_no_time(tallies: Tallies) -> None:
    tallies.begin(FIRST, 1)
    assert [(tally.step.name, tally.ended, tally.seconds) for tally in tallies] == [
        ("finder", 0.0, 0.0),
        ("species", 0.0, 0.0),
    ]
