from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from shoal.observe.histogram import Histogram

BOUNDS = (0.5, 1, 2.5)


@given(st.lists(st.sampled_from([0, 0.25, 0.5, 0.75, 1, 2, 2.5, 3, 1000])))
def test_many_at_once_count_as_one_after_the_other(amounts: list[float]) -> None:
    texts = []
    for at_once in (False, True):
        registry = CollectorRegistry()
        labelled = Histogram("h", "h.", ["model"], buckets=BOUNDS, registry=registry).labels("m")
        if at_once:
            labelled.observe_all(amounts)
        for amount in () if at_once else amounts:
            labelled.observe(amount)
        texts.append([line for line in generate_latest(registry).decode().splitlines() if "_created" not in line])
    assert texts[0] == texts[1]
