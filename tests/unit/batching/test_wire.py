from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.batching import wire
from shoal.batching.wire import read_settings, write_settings
from shoal.errors import ConfigurationError
from shoal.modelconfig.batching import BatchingSettings


@given(
    st.builds(
        BatchingSettings,
        max_batch_size=st.integers(1, 10**9),
        preferred_batch_size=st.lists(st.integers(1, 10**9), max_size=5).map(tuple),
        max_queue_delay_microseconds=st.integers(0, 10**9),
        latency_objective_microseconds=st.integers(0, 10**9),
        max_queue_size=st.integers(0, 10**9),
        default_timeout_microseconds=st.integers(0, 10**9),
        instance_count=st.integers(1, 10**9),
    )
)
def test_what_a_worker_writes_a_batcher_reads(settings: BatchingSettings) -> None:
    assert read_settings(write_settings(settings)) == (settings, ())


def test_a_field_that_is_missing_has_its_default_and_one_that_is_unknown_is_told() -> None:
    reading = read_settings('{"max_batch_size": 8, "zebra": null, "apple": {"x": [1]}}')
    assert reading == (BatchingSettings(max_batch_size=8), ("apple", "zebra"))
    assert read_settings("{}") == (BatchingSettings(), ())


@given(
    st.one_of(st.text(), st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(json.dumps))
)
def test_anything_else_is_an_error_of_its_own_kind(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        read_settings(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"max_batch_size": true}',
        '{"max_batch_size": 8.0}',
        '{"instance_count": 0}',
        '{"max_queue_size": -1}',
        '{"preferred_batch_size": [1, "2"]}',
        '{"preferred_batch_size": null}',
        "NaN",
        "[" * 100_000,
        "",
    ],
)
def test_what_can_not_be_right_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(text)
    assert len(str(caught.value)) < 300


def test_what_one_side_sends_the_other_takes() -> None:
    assert wire.MAX_REQUEST_BYTES < wire.MAX_CHUNK_BYTES, "a request that is larger than a chunk goes in one of its own"
    assert wire.REQUEST_BYTES <= wire.CHUNK_BYTES < wire.MAX_CHUNK_BYTES
    assert max(wire.REPLY_BYTES, wire.RESULTS_BYTES) < wire.MAX_RESULTS_BYTES
    assert wire.RESULTS_BYTES == 4 * 2**20, "ten seconds are enough for it on a slow link"
