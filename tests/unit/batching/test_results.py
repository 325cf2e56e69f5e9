from __future__ import annotations

import logging

import pytest

from shoal.batching import results, wire
from shoal.batching.v1 import batching_pb2
from shoal.errors import Code, Internal, InvalidRequest


def result(index: int, size: int) -> batching_pb2.BatchItemResult:
    return batching_pb2.BatchItemResult(index=index, response=bytes(size))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([10, 10], [[0, 1]]),
        ([60, 40, 1], [[0, 1], [2]]),
        ([500, 1], [[0], [1]]),
        ([1, 500], [[0], [1]]),
    ],
)
def test_groups_are_bounded_in_bytes(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], expected: list[list[int]]
) -> None:
    monkeypatch.setattr(wire, "RESULTS_BYTES", 100)
    groups = list(results.groups(result(index, size) for index, size in enumerate(sizes)))
    assert [[each.index for each in group] for group in groups] == expected


def test_an_error_on_purpose_is_told_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    told = results.failure(3, InvalidRequest("too long"), "/s/M")
    assert (told.index, told.code, told.message) == (3, Code.INVALID_ARGUMENT, "too long")
    assert not caplog.records


@pytest.mark.parametrize("error", [RuntimeError("secret"), Internal("secret")])
def test_any_other_is_logged_and_not_told(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        told = results.failure(3, error, "/s/M")
    assert told.code == Code.INTERNAL
    assert "secret" not in told.message
    assert "secret" in caplog.text
    assert "/s/M" in caplog.text
