from __future__ import annotations

import random

import pytest

from shoal.simulate import latencies
from shoal.simulate.latencies import ERROR, Buckets, Latencies


def taken(values: list[float]) -> Latencies:
    made = Latencies()
    for begin in range(0, len(values), 7):
        made.extend(values[begin : begin + 7])
    return made


def test_a_few_are_told_as_they_were() -> None:
    assert taken([3.0, 1.0, 2.0]).in_order() == [1.0, 2.0, 3.0]
    assert taken([]).in_order() == []


def test_many_are_told_to_within_the_error_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latencies, "EXACT", 500)
    source = random.Random(1)
    values = [source.lognormvariate(-4, 1) for _ in range(20_000)] + [0.0]
    told = taken(values).in_order()
    values.sort()
    assert isinstance(told, Buckets)
    assert len(told) == len(values)
    assert len(told.values) < 5_000
    for place in (1, 200, 10_000, 19_800, -1):
        assert told[place] == pytest.approx(values[place], rel=1.01 * ERROR)
    assert told[0] == pytest.approx(0.0, abs=1e-8)
    assert told[3:5] == [told[3], told[4]]
    with pytest.raises(IndexError):
        told[len(values)]
