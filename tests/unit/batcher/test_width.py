from __future__ import annotations

from shoal.batcher.width import MAX_STREAMS, SPARE_STREAMS, Width


def test_it_grows_at_once_and_shrinks_after_a_whole_period_of_less() -> None:
    width = Width()
    assert width.target == SPARE_STREAMS
    width.busy(10)
    assert width.target == 20 + SPARE_STREAMS
    width.turn(3)
    assert width.target == 20 + SPARE_STREAMS
    width.turn(0)
    assert width.target == 6 + SPARE_STREAMS
    width.turn(0)
    assert width.target == SPARE_STREAMS


def test_it_has_a_bound() -> None:
    width = Width()
    width.busy(10**6)
    assert width.target == MAX_STREAMS
