from __future__ import annotations

import pytest

from shoal.errors import ConfigurationError
from shoal.modelconfig.batching import BatchingSettings


def test_every_fault_is_named() -> None:
    settings = BatchingSettings(
        max_batch_size=0,
        max_queue_delay_microseconds=-1,
        latency_objective_microseconds=-3,
        max_queue_size=-2,
        instance_count=0,
        preferred_batch_size=(4,),
    )
    with pytest.raises(ConfigurationError) as caught:
        settings.check()
    for name in (
        "max_batch_size is 0",
        "max_queue_delay_microseconds is -1",
        "latency_objective_microseconds is -3",
        "max_queue_size is -2",
        "instance_count is 0",
        "preferred_batch_size has 4",
    ):
        assert name in str(caught.value)


def test_the_defaults_are_fine() -> None:
    BatchingSettings().check()
    BatchingSettings(max_batch_size=8, preferred_batch_size=(4, 8)).check()


def test_a_batch_is_open_for_its_objective_or_else_for_its_delay() -> None:
    assert BatchingSettings(max_queue_delay_microseconds=2000).open_seconds == 0.002
    both = BatchingSettings(max_queue_delay_microseconds=2000, latency_objective_microseconds=100_000)
    assert both.open_seconds == 0.1
