from __future__ import annotations

import random

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as Plain

from shoal.observe.histogram import Histogram


@pytest.mark.parametrize("count", [0, 1, 200])
def test_many_at_once_give_what_one_by_one_gives(count: int) -> None:
    buckets, source = (0.5, 1, 2), random.Random(7)
    amounts = [source.choice((0.1, 0.5, 0.7, 1.0, 1.5, 2.0, 9.0)) for _ in range(count)]
    ours, plain = CollectorRegistry(), CollectorRegistry()
    Histogram("h", "", ["l"], buckets=buckets, registry=ours).labels("x").observe_all(amounts)
    one = Plain("h", "", ["l"], buckets=buckets, registry=plain).labels("x")
    for amount in amounts:
        one.observe(amount)
    for name in ("h_bucket", "h_sum", "h_count"):
        for le in ("0.5", "1.0", "2.0", "+Inf") if name == "h_bucket" else ("",):
            labels = {"l": "x"} | ({"le": le} if le else {})
            assert ours.get_sample_value(name, labels) == pytest.approx(plain.get_sample_value(name, labels))
