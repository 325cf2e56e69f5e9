"""The ways beside one another: first whether they answer the same, then how fast."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from benchmarks.common import cpu
from benchmarks.common.figures import Measurement, ratio, spread, summary
from benchmarks.pipelines.names import CLIENT, OTHERS, PIPELINES, TRITON, UPLOADED
from benchmarks.pipelines.ways import differences
from benchmarks.pipelines.window import closed_loop
from shoal.errors import Internal
from shoal.runtime.percentile import percentile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.pipelines.triton import WithinTriton
    from benchmarks.pipelines.ways import Way

WARM_UP_SECONDS: Final = 0.7
TRIAL_SECONDS: Final = 1.0
BOX_TOLERANCE: Final = 1e-5
PROBABILITY_TOLERANCE: Final = 0.02
"""As in the tests of pipelines: pixels may be a level off."""
CLIENTS_TOLERANCE: Final = 0.05
"""Its crops are JPEGs once more."""
DETAILS: Final = ("p50_ms", "p99_ms", "sent_kib", "moved_kib", "mean_batch")


class Comparison:
    """Of all ways, at one number of boxes after another."""

    def __init__(
        self, ways: Mapping[str, Way], triton: WithinTriton, pictures: int, at_once: int, seconds: float
    ) -> None:
        """``pictures``: different ones; ``at_once``: that are asked about; ``seconds``: of each window."""
        self._ways = ways
        self._triton = triton
        self._pictures = pictures
        self._at_once = at_once
        self._seconds = seconds
        self._asked = 0

    async def run(self, count: int, rounds: int) -> list[dict[str, Any]]:
        """A row a way; every other round goes backwards.

        Raises:
            Internal: two ways answer differently.
        """
        off = await self._check(count)
        rates = await self._choose(count)
        found: dict[str, list[Measurement]] = defaultdict(list)
        for number in range(rounds):
            for name in list(self._ways)[:: -1 if number % 2 else 1]:
                one = await self._window(name, count)
                found[name].append(one)
                print(_line(count, self._at_once, name, one), flush=True)
        rows = [{"objects": count, "way": name, **_row(found, name), "off": off[name]} for name in self._ways]
        for row in rows:
            if row["way"] == TRITON:
                row |= {"instances": self._triton.instances, "instances_tried": rates}
        return rows

    async def _check(self, count: int) -> dict[str, dict[str, float]]:
        """How far each way's boxes and probabilities are from the pipeline's, at most."""
        off: dict[str, dict[str, float]] = {}
        for name, way in self._ways.items():
            most = PROBABILITY_TOLERANCE if name != CLIENT else CLIENTS_TOLERANCE
            boxes = probabilities = 0.0
            for number in range(self._pictures):
                expected = (await self._ways[UPLOADED].ask(number, count)).found
                found = (await way.ask(number, count)).found
                if len(expected) != count:
                    raise Internal(f"{len(expected)} boxes were found, not {count}")
                each = differences(found, expected)
                boxes, probabilities = max(boxes, each[0]), max(probabilities, each[1])
            if boxes > BOX_TOLERANCE or probabilities > most:
                raise Internal(f"{name} is {boxes:g} off in boxes, {probabilities:g} in probabilities")
            off[name] = {"boxes": round(boxes, 7), "probabilities": round(probabilities, 5)}
        return off

    async def _choose(self, count: int) -> dict[str, float]:
        """Takes the number of instances with which Triton is fastest; answers pictures a second of each."""
        rates = {}
        for instances in self._triton.choices:
            self._triton.instances = instances
            rates[instances] = (await self._window(TRITON, count, TRIAL_SECONDS)).images_per_s
        self._triton.instances = max(rates, key=lambda instances: rates[instances])
        return {str(instances): round(rate, 1) for instances, rate in rates.items()}

    async def _window(self, name: str, count: int, seconds: float | None = None) -> Measurement:
        way = self._ways[name]

        async def ask(number: int) -> int:
            answer = await way.ask(number, count)
            if len(answer.found) != count:
                raise Internal(f"{name}: {len(answer.found)} boxes were found, not {count}")
            return answer.sent_bytes

        warm = await closed_loop(ask, WARM_UP_SECONDS, self._at_once, first=self._asked)
        self._asked += len(warm.seconds)
        counted, before = await way.counts(), way.snapshot()
        window = await closed_loop(ask, seconds or self._seconds, self._at_once, first=self._asked)
        spent, counts = cpu.spent(before, way.snapshot()), await way.counts()
        self._asked += len(window.seconds)
        done, took = len(window.seconds), sorted(window.seconds)
        batches = max(1.0, counts.batches - counted.batches)
        figures = (
            1000 * (percentile(took, 0.5) or 0),
            1000 * (percentile(took, 0.99) or 0),
            window.sent_bytes / done / 1024,
            (counts.moved_bytes - counted.moved_bytes) / done / 1024,
            (counts.rows - counted.rows) / batches,
        )
        return Measurement(done, spent, dict(zip(DETAILS, figures, strict=True)))


def _row(found: Mapping[str, list[Measurement]], name: str) -> dict[str, Any]:
    rounds = found[name]
    figures = summary(rounds)
    del figures["details"]
    details = {detail: spread([one.details[detail] for one in rounds], 2) for detail in DETAILS}
    lead = {other: ratio(rounds, found[other]) for other in OTHERS} if name in PIPELINES else {}
    return {**figures, **details, "lead": lead}


def _line(count: int, at_once: int, name: str, one: Measurement) -> str:
    told = ", ".join(f"{detail} {one.details[detail]:.1f}" for detail in DETAILS)
    spent = one.cpu_ms(*one.cpu.components)
    return (
        f"{count} objects, {at_once} at once, {name}: {one.images_per_s:.1f} pictures/s, "
        f"CPU ms a picture {spent:.1f}, {told}, other work {one.cpu.other_cores:.2f} cores"
    )
