from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.runtime.precedence import BULK_SHARE, PATIENCE, Precedence
from shoal.runtime.priority import Priority


def turns(precedence: Precedence, count: int, *, interactive: bool = True, bulk: bool = True) -> list[Priority | None]:
    taken = []
    for _ in range(count):
        turn = precedence.next(interactive=interactive, bulk=bulk)
        taken.append(turn)
        if turn is not None:
            precedence.had(turn, bulk_waits=bulk)
    return taken


def test_bulk_has_one_turn_of_so_many_while_both_wait() -> None:
    taken = turns(Precedence(), 3 * BULK_SHARE)
    assert taken == [*[Priority.INTERACTIVE] * (BULK_SHARE - 1), Priority.BULK] * 3


def test_who_waits_alone_has_every_turn_and_nobody_none() -> None:
    precedence = Precedence()
    assert turns(precedence, 20, bulk=False) == [Priority.INTERACTIVE] * 20
    assert turns(precedence, 20, interactive=False) == [Priority.BULK] * 20
    assert turns(precedence, 2, interactive=False, bulk=False) == [None, None]


def test_turns_before_bulk_came_are_not_held_against_interactive() -> None:
    precedence = Precedence()
    turns(precedence, 20, bulk=False)
    assert turns(precedence, BULK_SHARE - 1) == [Priority.INTERACTIVE] * (BULK_SHARE - 1)


def ride(precedence: Precedence, count: int, riding: float) -> list[Priority | None]:
    """Whose turns come while both wait, and interactive ones have so much bulk in them."""
    taken = []
    for _ in range(count):
        turn = precedence.next(interactive=True, bulk=True)
        assert turn is not None
        precedence.had(turn, bulk_waits=True, riding=riding)
        taken.append(turn)
    return taken


def test_bulk_that_rides_in_interactive_turns_has_its_share_in_them_and_waits_for_a_bounded_number() -> None:
    turns = ride(Precedence(), 3 * PATIENCE, riding=0.5)
    assert turns == [*[Priority.INTERACTIVE] * (PATIENCE - 1), Priority.BULK] * 3


def test_bulk_that_has_ridden_less_than_its_share_has_the_rest_in_turns_of_its_own() -> None:
    taken = ride(Precedence(), 800, riding=1 / 16)
    bulk = taken.count(Priority.BULK)
    assert bulk / len(taken) == pytest.approx(1 / 15, abs=0.005)
    assert (bulk + (len(taken) - bulk) / 16) / len(taken) >= 1 / BULK_SHARE - 0.01


def test_what_rode_once_is_no_credit_for_good() -> None:
    precedence = Precedence()
    ride(precedence, 10, riding=1.0)
    assert ride(precedence, BULK_SHARE, riding=0.0)[-1] is Priority.BULK


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 1)), max_size=400))
def test_bulk_that_waits_is_passed_over_for_its_share_or_its_patience_at_most(
    steps: list[tuple[bool, bool, float]],
) -> None:
    precedence = Precedence()
    passed, owed = 0, 0.0
    for interactive, bulk, riding in steps:
        turn = precedence.next(interactive=interactive, bulk=bulk)
        if turn is None:
            continue
        precedence.had(turn, bulk_waits=bulk, riding=riding)
        if turn is Priority.INTERACTIVE and bulk:
            passed, owed = passed + 1, max(0.0, owed + 1 / BULK_SHARE - riding)
        else:
            passed, owed = 0, 0.0
        assert passed < PATIENCE
        assert owed < 1
