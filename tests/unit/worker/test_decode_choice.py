"""Where pictures are decoded, in virtual time: a device that takes batches in turn, and cores that take pictures."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.worker.decode_choice import BatchWay, DecodeChoice, DeviceReport, Way

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.service.spec import Decode

PIXELS = 500 * 375


@dataclass
class Host:
    """What decodes, with batches of some pictures of one size; ``run`` has all of them through as fast as it can."""

    decode: Decode
    device: float
    """Seconds a picture there."""
    core: float
    """Seconds a picture on a core."""
    cores: int = 8
    base: float = 0.0
    """Seconds of each batch on the device, beside its pictures'."""
    neighbour: float = 0.0
    """Seconds for which somebody else has the device, before each of our batches."""
    computes: float = 0.0
    """Seconds of the model for a batch, in turn."""
    pictures: int = 12
    in_flight: int = 6
    now: float = 0.0
    ways: Counter[Way] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._choice = DecodeChoice(self.decode, self.cores)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._idle_cores = self.cores
        self._for_cores: deque[tuple[float, Callable[[], None]]] = deque()
        self._device_free = self._model_free = 0.0
        self._left = 0

    def run(self, batches: int) -> float:
        """The seconds until all are done."""
        self._left = batches
        for _ in range(min(self.in_flight, batches)):
            self._begin()
        while self._events:
            self.now, _, do = heapq.heappop(self._events)
            do()
        return self.now

    def _at(self, time: float, do: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (time, self._number, do))

    def _begin(self) -> None:
        if not self._left:
            return
        self._left -= 1
        batch = self._choice.begin("model")
        on_cores = 0
        for _ in range(self.pictures):
            way = batch.choose(PIXELS, self.now)
            self.ways[way] += 1
            if way is Way.DEVICE:
                batch.on_device(PIXELS, self.now)
            else:
                on_cores += 1
        there = self.pictures - on_cores
        missing = [on_cores]

        def decoded() -> None:
            missing[0] -= 1
            if not missing[0]:
                self._decode_there(batch, there)

        for _ in range(on_cores):
            self._for_cores.append((self._choice.on_cpu(PIXELS), decoded))
        self._give_cores()
        if not on_cores:
            self._decode_there(batch, there)

    def _give_cores(self) -> None:
        while self._idle_cores and self._for_cores:
            self._idle_cores -= 1
            expected, done = self._for_cores.popleft()

            def end(expected: float = expected, done: Callable[[], None] = done) -> None:
                self._idle_cores += 1
                self._choice.off_cpu(PIXELS, expected, self.core, self.now)
                done()
                self._give_cores()

            self._at(self.now + self.core, end)

    def _decode_there(self, batch: BatchWay, count: int) -> None:
        ready, report = self.now, None
        if count:
            begun = max(self.now, self._device_free) + self.neighbour
            seconds = self.base + self.device * count
            self._device_free = ready = begun + seconds
            report = DeviceReport(begun - self.now, seconds, self.computes)
        self._model_free = max(ready, self._model_free) + self.computes

        def computed() -> None:
            batch.end(report, self.now)
            self._begin()

        self._at(self._model_free, computed)


def seconds(decode: Decode, **how: float) -> float:
    """Of 200 batches, once it has learned."""
    host = Host(decode, **how)  # type: ignore[arg-type]
    begun = host.run(50)
    return host.run(200) - begun


@settings(max_examples=100, derandomize=True)
@given(
    in_flight=st.integers(1, 10),
    device=st.floats(1e-5, 1e-2),
    core=st.floats(1e-4, 2e-2),
    cores=st.integers(1, 16),
    base=st.floats(0, 2e-3),
    also=st.sampled_from([{}, {}, {"neighbour": 1e-3}, {"neighbour": 1e-2}, {"computes": 1e-3}, {"computes": 1e-2}]),
)
def test_it_is_never_worse_than_the_better_way_alone(also: dict[str, float], **host: float) -> None:
    host |= also
    alone = min(seconds("gpu", **host), seconds("cpu", **host))
    assert seconds("auto", **host) <= 1.05 * alone


def test_both_together_are_faster_than_either_where_each_alone_is_the_bottleneck() -> None:
    host = {"device": 2e-4, "core": 1.6e-3, "cores": 8}
    assert seconds("auto", **host) < 0.65 * min(seconds("gpu", **host), seconds("cpu", **host))


def test_cores_are_left_alone_where_the_device_keeps_up() -> None:
    host = Host("auto", device=5e-5, core=1.5e-3, cores=16, computes=5e-3)  # the model is the bottleneck
    host.run(200)
    assert host.ways[Way.CPU] < 0.03 * host.ways[Way.DEVICE]


def test_a_wrong_first_guess_is_corrected() -> None:
    slow = Host("auto", device=5e-2, core=1e-3)  # a hundred times what is expected at first
    slow.run(200)
    assert slow.ways[Way.DEVICE] < 0.05 * slow.ways[Way.CPU]


def test_a_core_that_was_slow_once_is_tried_again() -> None:
    host = Host("auto", device=2e-3, core=0.2)
    host.run(50)
    host.core = 1e-3
    host.ways.clear()
    host.run(4000)
    assert host.ways[Way.CPU] > host.ways[Way.DEVICE]


def test_a_device_that_has_not_answered_gets_a_few_pictures() -> None:
    choice = DecodeChoice("auto", 4)
    first, second = choice.begin("model"), choice.begin("model")
    chosen = []
    for batch in [first] * 10 + [second] * 10:
        chosen.append(batch.choose(PIXELS, 0.0))
        if chosen[-1] is Way.DEVICE:
            batch.on_device(PIXELS, 0.0)
    assert Counter(chosen) == {Way.DEVICE: 4, Way.CPU: 16}
    first.end(None, 1.0)  # lost
    assert second.choose(PIXELS, 1.0) is Way.DEVICE


def way(choice: DecodeChoice, now: float) -> Way:
    """Of a new batch."""
    return choice.begin("model").choose(PIXELS, now)


def test_what_others_have_waiting_there_is_forgotten() -> None:
    choice = DecodeChoice("auto", 4)
    choice.off_cpu(PIXELS, choice.on_cpu(PIXELS), 2e-3, 0.0)
    for _ in range(100):
        choice.off_device(1, PIXELS, choice.on_device(PIXELS, 0.0), DeviceReport(0.5, 1e-4, 0.0), 0.0)
    choice.on_cpu(PIXELS)
    assert way(choice, 0.001) is Way.CPU
    assert way(choice, 20.0) is Way.DEVICE


def test_a_wait_for_the_model_is_none_for_the_decoder() -> None:
    choice = DecodeChoice("auto", 4)
    for _ in range(100):
        choice.off_device(1, PIXELS, choice.on_device(PIXELS, 0.0), DeviceReport(0.5, 1e-4, 0.1), 0.0)
    choice.on_cpu(PIXELS)
    assert way(choice, 0.1) is Way.DEVICE


def test_a_batch_goes_one_way() -> None:
    choice = DecodeChoice("auto", 1)
    choice.off_device(1, PIXELS, choice.on_device(PIXELS, 0.0), DeviceReport(0.0, 1e-4, 0.0), 0.0)
    for _ in range(5):
        batch = choice.begin("model")
        ways = set()
        for _ in range(64):
            ways.add(way := batch.choose(PIXELS, 0.0))
            if way is Way.DEVICE:
                batch.on_device(PIXELS, 0.0)
            else:
                choice.on_cpu(PIXELS)
        assert len(ways) == 1


def test_the_other_way_is_tried_by_one_picture_of_a_batch() -> None:
    """A batch waits for its last picture: one on a core makes it as late as all of them there, and costs a 64th."""
    choice = DecodeChoice("auto", 1)
    choice.off_device(64, 64 * PIXELS, 0.0, DeviceReport(0.0, 5e-3, 0.0), 0.0)
    ahead, batch = choice.begin("model"), choice.begin("model")
    ahead.choose(PIXELS, 1.0)
    for _ in range(128):
        ahead.on_device(PIXELS, 1.0)
    assert [batch.choose(PIXELS, 1.0) for _ in range(64)] == [Way.CPU] + [Way.DEVICE] * 63


def test_a_batch_ends_once() -> None:
    choice = DecodeChoice("auto", 1)
    batch = choice.begin("model")
    batch.choose(PIXELS, 0.0)
    batch.on_device(PIXELS, 0.0)
    for _ in range(3):
        batch.end(None, 0.0)
    assert choice._on_device == 0


@pytest.mark.parametrize(("decode", "way"), [("gpu", Way.DEVICE), ("cpu", Way.CPU)])
def test_a_setting_leaves_no_choice(decode: Decode, way: Way) -> None:
    host = Host(decode, device=1e-2, core=1e-2)
    host.run(20)
    assert set(host.ways) == {way}


def test_large_pictures_cost_a_core_less_a_pixel() -> None:
    choice = DecodeChoice("auto", 1)
    for _ in range(3):
        choice.off_cpu(PIXELS, choice.on_cpu(PIXELS), 1.5e-3, 0.0)
        choice.off_cpu(12_000_000, choice.on_cpu(12_000_000), 12e-3, 0.0)
    assert choice.on_cpu(PIXELS) == pytest.approx(1.5e-3)
    assert choice.on_cpu(12_000_000) == pytest.approx(12e-3)


def test_a_peak_of_others_is_waited_out() -> None:
    choice = DecodeChoice("auto", 4)
    choice.off_cpu(PIXELS, choice.on_cpu(PIXELS), 2e-3, 0.0)
    for number in range(10):
        waited = 2.0 if number in {4, 5, 6} else 1e-3
        choice.off_device(1, PIXELS, choice.on_device(PIXELS, 0.0), DeviceReport(waited, 1e-4, 0.0), 0.0)
    assert way(choice, 0.01) is Way.DEVICE


def test_a_batch_whose_first_picture_is_small_is_no_small_batch() -> None:
    """Else all that waits at the device would be compared with a fraction of the batch."""
    choice = DecodeChoice("auto", 2)
    for pixels, took in ((PIXELS, 2e-3), (30 * PIXELS, 50e-3)):
        choice.off_cpu(pixels, choice.on_cpu(pixels), took, 0.0)
    for now in range(100):
        batch = choice.begin("large")
        for pixels in (PIXELS, *[30 * PIXELS] * 7):
            batch.choose(pixels, now)
            batch.on_device(pixels, now)
        batch.end(DeviceReport(0.05, 0.02, 0.0), now + 0.1)
    assert choice.begin("large").choose(PIXELS, 99.1) is Way.DEVICE
