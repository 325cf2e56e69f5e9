"""What no change to the policy may fall below: two points less than it had when the line was last changed.

A floor goes up with the policy. One that has to go down for a reason goes down with that reason in the commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.scored.score import Score

if TYPE_CHECKING:
    from collections.abc import Mapping

FLOORS = {
    "steady": Score(97, 82, 55, 98),
    "burst": Score(98, 34, 45, 98),
    "skewed owners": Score(97, 78, 98, 98),
    "slow replica": Score(98, 31, 22, 98),
    "bulk beside interactive": Score(92, 71, 88, 97),
    "tight deadlines": Score(89, 75, 85, 97),
    "overload": Score(97, 27, 98, 98),
    "objective at low load": Score(98, 98, 97, 98),
    "tight objective": Score(97, 98, 56, 98),
    "two models": Score(98, 28, 50, 98),
    "dying worker": Score(98, 78, 49, 98),
    "slow store": Score(98, 56, 50, 98),
}
"""Goodput, latency, batch size and fairness."""


def fallen(scores: Mapping[str, Score], floors: Mapping[str, Score] = FLOORS) -> str:
    """A table of what is below its floor; empty where nothing is."""
    rows = [
        f"{name:<26} {measure:<10} {got:>6.1f} {floor:>6g}"
        for name, score in scores.items()
        for measure, (got, floor) in score.below(floors[name]).items()
    ]
    return "\n".join([f"{'scenario':<26} {'measure':<10} {'score':>6} {'floor':>6}", *rows]) if rows else ""
