from __future__ import annotations

from shoal.runtime.precedence import BULK_SHARE, Precedence
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
