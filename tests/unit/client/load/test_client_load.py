from __future__ import annotations

import asyncio
import selectors
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import pytest

from shoal.client.findings import Analysis
from shoal.client.load.generator import LoadRequest, LoadSettings, PipelineRequest, run_load
from shoal.client.results import Classification, Timing
from shoal.errors import ConfigurationError, DeadlineExceeded, Overloaded
from shoal.modelconfig.model import Task

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from shoal.client.results import Image

T = TypeVar("T")
REQUESTS = [LoadRequest(Task.CLASSIFICATION, "a", "cats"), LoadRequest(Task.CLASSIFICATION, "b", "cats")]


class Jump(selectors.DefaultSelector):
    """Never waits: the time that would have been waited is added to the loop's clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jump = Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


def run(work: Coroutine[object, object, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


class Caller:
    """Answers after ``seconds`` of virtual time; fails where told to."""

    def __init__(self, seconds: float, *, error: Exception | None = None, stall: tuple[float, float] = (0, 0)) -> None:
        self.seconds = seconds
        self.error = error
        self.stall = stall
        self.images: list[Image] = []
        self.models: list[tuple[float, str]] = []
        self.timeouts: list[float | None] = []

    async def infer(
        self, task: Task, image: Image, model: str, *, timeout_seconds: float | None = None
    ) -> Classification:
        self.images.append(image)
        self.models.append((asyncio.get_running_loop().time(), model))
        self.timeouts.append(timeout_seconds)
        if timeout_seconds is not None and timeout_seconds <= 0:
            raise DeadlineExceeded("too late")
        if self.error:
            raise self.error
        begin, end = self.stall
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(max(end - now, self.seconds) if begin <= now else self.seconds)
        return Classification(str(image), model, 1, (), Timing(1, 2, 3, 4, 5, 6, 8))


def test_a_closed_loop_keeps_its_callers_busy() -> None:
    caller = Caller(0.1)
    settings = LoadSettings(concurrency=4, duration_seconds=10, warm_up_seconds=1)
    result = run(run_load(caller, REQUESTS, settings))
    assert result.duration_seconds == pytest.approx(10)
    assert result.images_per_s == pytest.approx(40, rel=0.02)
    assert min(result.latencies) == pytest.approx(0.1) == max(result.latencies)
    assert result.mean_batch_size == 8
    assert caller.images[:4] == ["a", "b", "a", "b"]


def test_an_open_loop_sends_at_its_rate_however_slow_the_answers() -> None:
    caller = Caller(3.0)
    settings = LoadSettings(rate=100, duration_seconds=20, warm_up_seconds=5, seed=7)
    result = run(run_load(caller, REQUESTS, settings))
    assert len(result.latencies) == pytest.approx(2000, rel=0.1)
    assert result.images_per_s == pytest.approx(100, rel=0.1)
    assert min(result.latencies) == pytest.approx(3.0) == max(result.latencies)


def test_latency_counts_from_the_intended_time() -> None:
    caller = Caller(0.001, stall=(5.0, 8.0))  # nobody is answered between second 5 and second 8
    settings = LoadSettings(rate=100, duration_seconds=5, warm_up_seconds=5, max_in_flight=1, seed=7)
    result = run(run_load(caller, REQUESTS, settings))
    late = [latency for latency in result.latencies if latency > 1]
    assert len(late) == pytest.approx(200, rel=0.25)  # those meant for the first two seconds of the stall
    assert max(late) == pytest.approx(3.0, abs=0.1)
    assert result.lag_max_seconds > 2
    assert min(timeout for timeout in caller.timeouts if timeout is not None) < settings.timeout_seconds - 2


def test_errors_are_counted_by_code_and_do_not_stop_the_load() -> None:
    caller = Caller(0.1, error=Overloaded("full"))
    settings = LoadSettings(rate=10, duration_seconds=5, warm_up_seconds=5, seed=7)
    result = run(run_load(caller, REQUESTS, settings))
    assert 20 < result.failed.codes["RESOURCE_EXHAUSTED"] < len(caller.images)
    assert result.answered == 0


def test_a_pipeline_is_asked_for_its_analysis() -> None:
    asked: list[tuple[Image, str, float | None]] = []

    class Analyzer:
        async def analyze(self, image: Image, pipeline: str, *, timeout_seconds: float | None = None) -> Analysis:
            asked.append((image, pipeline, timeout_seconds))
            await asyncio.sleep(0.5)
            return Analysis(str(image), pipeline, (), (), 0, 0)

    requests = [PipelineRequest("a", "street"), PipelineRequest("b", "street")]
    settings = LoadSettings(concurrency=1, duration_seconds=2, warm_up_seconds=1, timeout_seconds=7)
    result = run(run_load(Analyzer(), requests, settings))
    assert asked[:3] == [("a", "street", 7), ("b", "street", 7), ("a", "street", 7)]
    assert list(result.latencies) == [0.5] * 4
    assert result.pipeline is not None
    assert len(result.pipeline.is_whole) == 4


def test_stopping_early_keeps_what_was_measured() -> None:
    async def interrupted() -> tuple[float, int, float, bool]:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(6, stop.set)
        result = await run_load(
            Caller(0.1), REQUESTS, LoadSettings(concurrency=1, duration_seconds=60, warm_up_seconds=1), stop=stop
        )
        return result.duration_seconds, result.answered, asyncio.get_running_loop().time(), result.interrupted

    duration, answered, now, was_interrupted = run(interrupted())
    assert was_interrupted
    assert duration == pytest.approx(5)
    assert answered == pytest.approx(50, abs=1)
    assert now == pytest.approx(6)


def test_stopping_in_the_warm_up_measures_nothing() -> None:
    async def interrupted() -> float:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.5, stop.set)
        return (await run_load(Caller(0.1), REQUESTS, LoadSettings(), stop=stop)).images_per_s

    assert run(interrupted()) == 0


def test_progress_is_told_now_and_then() -> None:
    told: list[float] = []
    settings = LoadSettings(concurrency=10, duration_seconds=10, warm_up_seconds=0)
    run(run_load(Caller(0.01), REQUESTS, settings, advance=told.append))
    assert len(told) <= 101
    assert told == sorted(told)


def test_shares_add_up_to_the_whole() -> None:
    settings = LoadSettings(concurrency=10, rate=9, seed=5)
    shares = [settings.share(index, 3) for index in range(3)]
    assert [share.concurrency for share in shares] == [4, 3, 3]


@pytest.mark.parametrize("burstiness", [1.0, 4.0])
def test_processes_send_each_its_part_of_the_same_arrivals(burstiness: float) -> None:
    """Processes of their own would add up to arrivals that are less bursty."""
    settings = LoadSettings(rate=9, burstiness=burstiness, seed=5)
    parts = [list(islice(settings.share(index, 3).arrivals(), 10)) for index in range(3)]
    assert sorted(arrival for part in parts for arrival in part) == list(islice(settings.arrivals(), 30))


def test_a_trace_is_played(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("time,model\n0.5,dogs\n1.5,cats\n1.5,dogs\n4,cats\n")
    settings = LoadSettings(trace=trace, duration_seconds=3.5, warm_up_seconds=1)
    caller = Caller(2.0)
    result = run(run_load(caller, REQUESTS, settings))
    assert caller.models == [pytest.approx((0.5, "dogs")), (1.5, "cats"), (1.5, "dogs"), (4.0, "cats")]
    assert list(result.latencies) == pytest.approx([2.0] * 3)  # that of the warm-up doesn't count
    halves = [Caller(2.0), Caller(2.0)]
    for index, half in enumerate(halves):
        run(run_load(half, REQUESTS, settings.share(index, 2)))
    assert halves[0].models == [(0.5, "dogs"), (1.5, "dogs")]
    assert halves[1].models == [(1.5, "cats"), (4.0, "cats")]


def test_a_window_in_which_nothing_more_comes_is_as_long_as_any(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("time,model\n0.5,dogs\n60,cats\n")
    result = run(run_load(Caller(0.1), REQUESTS, LoadSettings(trace=trace, duration_seconds=10, warm_up_seconds=0)))
    assert result.duration_seconds == 10
    assert result.images_per_s == 0.1


def test_a_trace_that_turns_out_to_be_wrong_ends_the_load(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("time,model\n0.5,dogs\n0.4,cats\n")
    with pytest.raises(ConfigurationError, match=":3: out of order"):
        run(run_load(Caller(0.1), REQUESTS, LoadSettings(trace=trace)))


@pytest.mark.parametrize(
    "wrong", [{"duration_seconds": 0}, {"rate": -1}, {"concurrency": 0}, {"warm_up_seconds": -1}, {"burstiness": -1}]
)
def test_settings_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="expected"):
        LoadSettings(**wrong)
