from __future__ import annotations

import pytest

from shoal.errors import ConfigurationError
from shoal.modelconfig.batching import BatchingSettings


def test_every_fault_is_named() -> None:
    settings = BatchingSettings(
        max_batch_size=0,
        max_queue_delay_microseconds=-1,
        max_queue_size=-2,
        instance_count=0,
        preferred_batch_size=(4,),
    )
    with pytest.raises(ConfigurationError) as caught:
        settings.check()
    for name in (
        "max_batch_size is 0",
        "max_queue_delay_microseconds is -1",
        "max_queue_size is -2",
        "instance_count is 0",
        "preferred_batch_size has 4",
    ):
        assert name in str(caught.value)


def test_the_defaults_are_fine() -> None:
    BatchingSettings().check()
    BatchingSettings(max_batch_size=8, preferred_batch_size=(4, 8)).check()
