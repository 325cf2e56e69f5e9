"""Results of items: failures, and replies in messages of a bounded size."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from shoal.batching import wire
from shoal.batching.v1 import batching_pb2
from shoal.errors import Internal, ShoalError, to_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

log = logging.getLogger(__name__)


def failure(index: int, error: BaseException, where: str) -> batching_pb2.BatchItemResult:
    """The result of an item that failed. What nobody expected goes to the log; its caller gets a fixed text."""
    if not isinstance(error, ShoalError) or isinstance(error, Internal):
        log.error("%s: a request failed", where, exc_info=error)
    code, message = to_status(error)
    return batching_pb2.BatchItemResult(index=index, code=code, message=message)


def groups(results: Iterable[batching_pb2.BatchItemResult]) -> Iterator[list[batching_pb2.BatchItemResult]]:
    """The results in their order, in groups of ``wire.RESULTS_BYTES`` or, where one is larger, of one."""
    group: list[batching_pb2.BatchItemResult] = []
    size = 0
    for result in results:
        size += len(result.response)
        if group and size > wire.RESULTS_BYTES:
            yield group
            group, size = [], len(result.response)
        group.append(result)
    if group:
        yield group
