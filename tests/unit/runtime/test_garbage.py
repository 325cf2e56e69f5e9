from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from shoal.runtime import garbage

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


class Knot:
    def __init__(self) -> None:
        self.itself = self


def test_what_is_there_is_never_looked_at_again_and_garbage_is_none_of_it() -> None:
    gone = weakref.ref(Knot())
    garbage.settle()
    assert gone() is None
    assert gc.get_freeze_count() > 1000


def test_cycles_that_come_later_are_still_found() -> None:
    garbage.settle()
    gone = weakref.ref(Knot())
    kept = [[] for _ in range(2 * gc.get_threshold()[0])]  # type: ignore[var-annotated]
    assert kept
    assert gone() is None
