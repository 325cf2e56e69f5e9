from __future__ import annotations

import pytest

from shoal.simulate.judge import Figures, errors, missed

MEASURED = Figures.of([0.1] * 98 + [0.2, 0.4], 200, 10.0, 4.0)


def test_figures_are_those_of_good_answers_and_the_share_of_all_others() -> None:
    assert (MEASURED.p50, MEASURED.p99) == (0.1, 0.2)
    assert MEASURED.refused_share == pytest.approx(0.5)
    assert Figures.of([], 0, 0.0, 0.0).p99 is None


def test_errors_are_relative_but_for_the_share() -> None:
    said = Figures.of([0.104] * 98 + [0.24, 0.4], 190, 9.0, 4.1)
    found = errors(MEASURED, said)
    assert found["throughput"] == pytest.approx(-0.1)
    assert found["p99"] == pytest.approx(0.2)
    assert found["refused_share"] == pytest.approx(90 / 190 - 0.5)
    assert missed(found) == ["throughput", "p99"]


def test_where_nothing_was_answered_there_is_nothing_to_compare() -> None:
    found = errors(Figures.of([], 10, 0.0, 0.0), MEASURED)
    assert found["p50"] is None
    assert found["throughput"] is None
    assert missed(found) == ["refused_share"]
