from __future__ import annotations

import json
import pickle

from shoal.client.findings import Analysis, Finding, StepResult, StepTiming
from shoal.client.load.pipeline_tally import PipelineTally
from shoal.client.load.tally import LoadResult, merge
from shoal.client.results import Box, Timing
from shoal.errors import DeadlineExceeded, ShoalError, Unavailable

NOTHING = Timing(0, 0, 0, 0, 0, 0, 0)


def timing(batch_size: int, microseconds: int = 10) -> Timing:
    queue, fetch, decode, compute = (microseconds * each for each in (1, 2, 3, 4))
    return Timing(queue, fetch, decode, compute, 0, 0, batch_size)


def finding(*errors: ShoalError | None) -> Finding:
    results = tuple(StepResult("species", "m", 0, error, (), (), None) for error in errors)
    return Finding(Box(0, 0, 1, 1, 0, "bird", 0.5), results)


def analysis(findings: tuple[Finding, ...], *steps: StepTiming, upload_us: int = 0) -> Analysis:
    return Analysis("uuid", "street", findings, steps, upload_us, 0)


WHOLE = analysis(
    (finding(None), finding(None)),
    StepTiming("finder", "f", 1, 0, 5_000, timing(1)),
    StepTiming("species", "m", 2, 0, 3_000, timing(8)),
)
LACKING = analysis(
    (finding(DeadlineExceeded("too late")), finding(Unavailable("away")), finding(DeadlineExceeded("not asked"))),
    StepTiming("finder", "f", 1, 0, 7_000, timing(1)),
    StepTiming("species", "m", 2, 2, 9_000, NOTHING),  # the third found no time left
)
EMPTY = analysis(
    (), StepTiming("finder", "f", 1, 0, 6_000, timing(1, 40)), StepTiming("species", "m", 0, 0, 0, NOTHING)
)


def tally(*answers: Analysis) -> PipelineTally:
    made = PipelineTally()
    for one in answers:
        made.add(one)
    return made


def test_summary() -> None:
    summary = json.loads(json.dumps(tally(WHOLE, LACKING, EMPTY).summary()))
    assert (summary["whole"], summary["lacking"], summary["mean_objects"]) == (2, 1, round(5 / 3, 2))
    finder, species = summary["steps"]
    assert finder == {
        "step": "finder",
        "model": "f",
        "calls": 3,
        "failed": 0,
        "codes": {},
        "reasons": {},
        "total_ms": {"p50": 6.0, "p99": 7.0},
        "mean_batch_size": 1.0,
        "stage_mean_us": {"queue": 20, "fetch": 40, "decode": 60, "compute": 80},  # of 10, 10 and 40 and so on
    }
    assert (species["calls"], species["failed"]) == (4, 2)
    assert species["codes"] == {"DEADLINE_EXCEEDED": 2, "UNAVAILABLE": 1}
    assert species["reasons"] == {"DEADLINE_EXCEEDED": "too late", "UNAVAILABLE": "away"}
    assert species["total_ms"] == {"p50": 3.0, "p99": 9.0}  # a picture without boxes took it no time
    assert species["stage_mean_us"] == {"queue": 10, "fetch": 20, "decode": 30, "compute": 40}
    assert species["mean_batch_size"] == 8.0


def test_shares_add_up() -> None:
    shares = [tally(WHOLE), tally(LACKING, EMPTY)]
    whole = PipelineTally()
    for share in shares:
        whole.extend(pickle.loads(pickle.dumps(share)))
    assert whole.summary() == tally(WHOLE, LACKING, EMPTY).summary()
    assert list(whole.is_whole) == [1, 0, 1]


def load(*answers: tuple[float, Analysis]) -> LoadResult:
    result = LoadResult(duration_seconds=1.0, pipeline=PipelineTally())
    for latency, found in answers:
        result.add(latency, 0.0, found)
    return result


def test_latencies_of_whole_answers_are_told_apart_from_those_of_others() -> None:
    shares = [load((0.1, WHOLE), (0.2, LACKING)), LoadResult(), load((0.3, LACKING), (0.4, EMPTY))]
    whole = merge(shares)
    assert whole.whole_latencies() == [0.1, 0.4]
    assert whole.summary()["latency_ms"]["max"] == 400.0  # an answer is one, whatever lacks in it


def test_of_a_load_a_pipelines_stages_are_its_steps_alone() -> None:
    summary = load((0.1, analysis((), upload_us=3_000)), (0.1, analysis((), upload_us=6_000))).summary()
    stages = {"upload": 4_500, "queue": None, "fetch": None, "decode": None, "compute": None}
    assert (summary["stage_mean_us"], summary["mean_batch_size"]) == (stages, None)
    assert "pipeline" not in LoadResult().summary()


def test_where_nothing_was_answered_there_is_no_mean() -> None:
    summary = load().summary()
    assert summary["pipeline"] == {"whole": 0, "lacking": 0, "mean_objects": None, "steps": []}
    assert summary["stage_mean_us"]["upload"] is None
