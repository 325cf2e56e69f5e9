"""Which way a batch's JPEGs are decoded where both can: on the model's device, or by cores of this worker.

A batch goes where its pictures will be ready sooner; all of them the same way, since a batch that goes both has to wait
for the cores before the device can begin. So the device's queue and the cores' stay about equally long, and where one
keeps up the other stays idle. What each way costs is learned from what it took. Without a clock: times are arguments,
in seconds of ``time.monotonic``.
"""

from __future__ import annotations

import math
from collections import deque
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from shoal.service.spec import Decode


class Way(StrEnum):
    """Where a picture is decoded."""

    DEVICE = "device"
    CPU = "cpu"


# Python 3.11 takes 0.7 us to find a member by its class.
DEVICE: Final = Way.DEVICE
CPU: Final = Way.CPU


class DeviceReport(NamedTuple):
    """What became of a batch's JPEGs on the device; seconds."""

    waited: float
    """In the runner's queue."""
    decoded: float
    """All of them together."""
    computed: float
    """By the model, over the number of batches that it computes at once."""


_FIRST_CPU: Final = 0.008
"""Seconds a megapixel, until one was decoded."""
_FIRST_DEVICE: Final = 0.0005
_FIRST_ROWS: Final = 8.0
"""JPEGs of a batch, until there was one."""
_WAITS: Final = 9
"""Of so many batches the median counts, so that a stall isn't taken for a neighbour."""
_WEIGHT: Final = 0.1
"""Of the newest in a running mean."""
_UNTRIED: Final = 4
"""Pictures that go to a device which hasn't answered yet."""
_SLOWER: Final = 2.0
"""The slower way has to win by so much: where few batches are in flight, one that is away for long is missed."""
_STALE_SECONDS: Final = 10.0
"""Half of what was learned of a way that nobody takes is gone after so long."""
_FORGETS_SECONDS: Final = 1.0
"""Half of what others had waiting at the device is gone after so long."""
REFUSED_SECONDS: Final = 5.0
"""A device that decodes nothing at present is asked again after so long."""
_RETRY_RATIO: Final = 100
"""A way that seems worse is tried again, by one picture, after so many times what it would cost there."""


class DecodeChoice:
    """For all models of a worker: they share its cores, and mostly one device."""

    def __init__(self, decode: Decode, threads: int) -> None:
        """Prepares.

        Args:
            decode: ``gpu`` and ``cpu`` leave no choice.
            threads: Pictures that the cores decode at once.
        """
        self.decode = decode
        self._threads = threads
        self._cpu_costs = _CpuCosts()
        self._cpu_seconds = 0.0
        """Of decoding that was given to cores and hasn't ended, as expected."""
        self._cpu_told = 0.0
        """When a core was done last."""
        self._device = _DeviceCosts()
        self._on_device = 0
        """Pictures there, or on their way."""
        self._device_told = 0.0
        self._free_at = 0.0
        """When the device has done what we gave it, as expected."""
        self._foreign, self._foreign_at = 0.0, 0.0
        """How much longer than that pictures waited for it lately, since others use it, too; and when."""
        self._waits: deque[float] = deque(maxlen=_WAITS)
        """For others, of the batches that came back last."""
        self._usual: dict[str, Usual] = {}
        """By model."""

    def begin(self, model: str) -> BatchWay:
        """A batch."""
        return BatchWay(self, self._usual.setdefault(model, Usual()))

    def choose(self, usual: Usual, pixels: int, now: float) -> Way:
        """For a batch whose first picture that either way can decode has so many pixels."""
        if self.decode != "auto":
            return DEVICE if self.decode == "gpu" else CPU
        if not self.knows_device:
            return DEVICE
        there = self._device.of(usual.rows, usual.pixels or pixels)
        here = self._cpu_seconds_of(usual, pixels)
        own_wait, others = self._own_wait(now), self._others_wait(now)
        there += others
        ready_there = own_wait + there * (_SLOWER if there > here else 1)
        ready_here = self._cpu_seconds / self._threads + here * (_SLOWER if here > there else 1)
        return DEVICE if ready_there <= ready_here else CPU

    def tries_other(self, way: Way, usual: Usual, pixels: int, now: float) -> bool:
        """Whether one picture of a batch goes the way that its batch doesn't, so that what that costs stays known.

        One alone: a batch waits for its last picture, so that it is as late as one that goes there as a whole.
        """
        if self.decode != "auto" or not self.knows_device:
            return False
        there = self._device.of(usual.rows, usual.pixels or pixels)
        if way is CPU:
            return not self._on_device and now - self._device_told > _RETRY_RATIO * (there + self._foreign)
        is_behind = self._own_wait(now) + self._others_wait(now) > there
        here = self._cpu_costs.of(pixels)
        return is_behind and not self._cpu_seconds and now - self._cpu_told > _RETRY_RATIO * here

    @property
    def knows_device(self) -> bool:
        """Whether it has answered, or is the only way."""
        return self._device.known or self.decode == "gpu"

    @property
    def has_tried_enough(self) -> bool:
        """Whether a device that hasn't answered yet has enough to do."""
        return not self.knows_device and self._on_device >= _UNTRIED

    def on_device(self, pixels: int, now: float) -> float:
        """A picture goes there; the seconds until its turn, as far as we know of our own."""
        self._on_device += 1
        wait = self._own_wait(now)
        self._free_at = now + wait + self._device.more(pixels)
        return wait

    def off_device(self, count: int, pixels: int, expected: float, report: DeviceReport | None, now: float) -> None:
        """A batch's JPEGs are back.

        Args:
            count: Of them.
            pixels: Of all of them.
            expected: The seconds that the first of them was to wait, as ``on_device`` said.
            report: None: they were lost with their batch.
            now: The time.
        """
        self._on_device -= count
        weight, self._device_told = _weight(now - self._device_told), now
        if report is None:
            return
        self._device.learn(pixels, report.decoded, weight)
        # Where the model takes longer than the decoder, pictures wait for the model, whichever way they came.
        waited = report.waited if report.decoded >= report.computed else 0.0
        others, before = max(0.0, waited - expected), self._others_wait(now)
        # Not its peaks: they pass sooner than cores are done with a batch. A stall, as when the graph of a size is
        # made, would send a twentieth of the pictures to cores for seconds.
        self._waits.append(others)
        self._foreign = _mean(before, median(self._waits))
        self._foreign_at = now

    def on_cpu(self, pixels: int) -> float:
        """A picture goes to a core; the seconds that it takes there, as expected."""
        seconds = self._cpu_costs.of(pixels)
        self._cpu_seconds += seconds
        return seconds

    def off_cpu(self, pixels: int, expected: float, seconds: float | None, now: float) -> None:
        """A core is done with a picture.

        Args:
            pixels: Of it.
            expected: What ``on_cpu`` said.
            seconds: That it took; None: it wasn't decoded.
            now: The time.
        """
        self._cpu_seconds = max(0.0, self._cpu_seconds - expected)
        if seconds is not None:
            self._cpu_costs.learn(pixels, seconds, _weight(now - self._cpu_told))
            self._cpu_told = now

    def _cpu_seconds_of(self, usual: Usual, pixels: int) -> float:
        """Of a batch, by idle cores."""
        rounds = math.ceil(max(1, round(usual.rows)) / self._threads)
        return self._cpu_costs.of(round(usual.pixels or pixels)) * rounds

    def _own_wait(self, now: float) -> float:
        """Until the device has done what we gave it."""
        return max(0.0, self._free_at - now)

    def _others_wait(self, now: float) -> float:
        return float(self._foreign * 0.5 ** ((now - self._foreign_at) / _FORGETS_SECONDS))


class Usual:
    """A model's batches, in the mean: which pictures one will have isn't known when its first comes."""

    def __init__(self) -> None:
        self.rows = _FIRST_ROWS
        """JPEGs that either way can decode."""
        self.pixels = 0.0
        """Of one of them; 0 until there was one."""
        self.refused_until = 0.0
        """The device decodes none of its JPEGs before."""

    def learn(self, rows: int, pixels: int) -> None:
        """A batch had so many, of so many pixels together."""
        self.rows = _mean(self.rows, rows)
        self.pixels = _mean(self.pixels or pixels / rows, pixels / rows)


class BatchWay:
    """The way of one batch's JPEGs: that of the first of them for which there is a choice."""

    def __init__(self, choice: DecodeChoice, usual: Usual) -> None:
        self._choice = choice
        self._usual = usual
        self._way: Way | None = None
        self._rows = self._all_pixels = 0
        """For which there is a choice."""
        self._count, self._pixels, self._expected = 0, 0, 0.0
        """On the device."""

    def choose(self, pixels: int, now: float) -> Way:
        """For a picture that either way can decode."""
        self._rows, self._all_pixels = self._rows + 1, self._all_pixels + pixels
        if self._way is None:
            refuses = now < self._usual.refused_until
            self._way = CPU if refuses else self._choice.choose(self._usual, pixels, now)
            if refuses:
                return CPU
            if self._choice.tries_other(self._way, self._usual, pixels, now):
                return CPU if self._way is DEVICE else DEVICE
        return CPU if self._choice.has_tried_enough else self._way

    def on_device(self, pixels: int, now: float) -> None:
        """A picture goes there."""
        wait = self._choice.on_device(pixels, now)
        if not self._count:
            self._expected = wait
        self._count, self._pixels = self._count + 1, self._pixels + pixels

    def refused(self, now: float) -> None:
        """The device decodes nothing at present."""
        self._usual.refused_until = now + REFUSED_SECONDS
        self.end(None, now)

    def end(self, report: DeviceReport | None, now: float) -> None:
        """The batch was executed, or won't be; more than one call changes nothing. ``report``: see ``off_device``."""
        if self._rows:
            self._usual.learn(self._rows, self._all_pixels)
        if self._count:
            self._choice.off_device(self._count, self._pixels, self._expected, report, now)
        self._rows = self._count = 0


class _CpuCosts:
    """Seconds a megapixel, by size: a core decodes large pictures at a smaller scale."""

    def __init__(self) -> None:
        self._known: dict[int, float] = {}
        """By the number of bits that the number of pixels has."""

    def of(self, pixels: int) -> float:
        """Seconds of a picture."""
        size = pixels.bit_length()
        nearest = min(self._known, key=lambda known: abs(known - size), default=None)
        return pixels / 1e6 * (_FIRST_CPU if nearest is None else self._known[nearest])

    def learn(self, pixels: int, seconds: float, weight: float) -> None:
        """A picture took so long."""
        size, rate = pixels.bit_length(), seconds / (pixels / 1e6)
        self._known[size] = _mean(self._known.get(size, rate), rate, weight)


class _DeviceCosts:
    """A batch takes a part that is always the same, and one for each megapixel: a line through what was seen."""

    def __init__(self) -> None:
        self.known = False
        self._x, self._y, self._xx, self._xy = 0.0, 0.0, 0.0, 0.0
        """Running means: megapixels, seconds, their squares and products."""

    def of(self, rows: float, pixels: float) -> float:
        """Seconds of a batch of pictures of so many pixels each."""
        return max(0.0, self._y - self._slope * self._x) + rows * self.more(pixels)

    def more(self, pixels: float) -> float:
        """Seconds by which a picture makes a batch longer."""
        return pixels / 1e6 * (self._slope if self.known else _FIRST_DEVICE)

    def learn(self, pixels: int, seconds: float, weight: float) -> None:
        """A batch of so many pixels took so long."""
        x = pixels / 1e6
        news = x, seconds, x * x, x * seconds
        if not self.known:
            self._x, self._y, self._xx, self._xy = news
            self.known = True
            return
        before = self._x, self._y, self._xx, self._xy
        self._x, self._y, self._xx, self._xy = (_mean(*each, weight) for each in zip(before, news, strict=True))

    @property
    def _slope(self) -> float:
        """Seconds a megapixel; all of them, where batches were too much alike to tell."""
        whole = self._y / self._x
        spread = self._xx - self._x**2
        if spread < (_WEIGHT * self._x) ** 2:
            return whole
        return min(max((self._xy - self._x * self._y) / spread, 0.0), whole)


def _mean(before: float, new: float, weight: float = _WEIGHT) -> float:
    return before + weight * (new - before)


def _weight(seconds: float) -> float:
    """Of news, where nothing was heard for so long: half of what was known is forgotten in ``_STALE_SECONDS``."""
    return max(_WEIGHT, 1 - float(0.5 ** (seconds / _STALE_SECONDS)))
