from __future__ import annotations

import pytest

from shoal.errors import ConfigurationError
from shoal.profile.grid import Grid, numbers
from shoal.profile.records import Setting
from support.profiles import empty, measured

GRID = Grid(instances=(1, 2), batches=(8,), concurrencies=(1, 4), rounds=2, duration_seconds=1.0, input="random")


def test_every_round_goes_over_all_settings_and_turns_back() -> None:
    order = [setting for _, setting in GRID.missing(empty())]
    assert order[:4] == [Setting(1, 8, 1), Setting(1, 8, 4), Setting(2, 8, 1), Setting(2, 8, 4)]
    assert order[4:] == order[3::-1]


def test_what_is_there_is_not_measured_again() -> None:
    profile = empty()
    for setting in (Setting(1, 8, 1), Setting(1, 8, 1), Setting(2, 8, 4)):
        profile = profile.with_round(GRID.cell(setting), measured(100.0), None)
    assert list(GRID.missing(profile)) == [
        (0, Setting(1, 8, 4)),
        (0, Setting(2, 8, 1)),
        (1, Setting(2, 8, 4)),
        (1, Setting(2, 8, 1)),
        (1, Setting(1, 8, 4)),
    ]
    assert [cell.setting for cell in GRID.cells(profile)] == [Setting(1, 8, 1), Setting(2, 8, 4)]


def test_numbers_come_in_order_and_once() -> None:
    assert numbers("--batch", "8, 1,8") == (1, 8)


@pytest.mark.parametrize("text", ["", "0", "1,", "-1", "1.5", "two", "\N{SUPERSCRIPT TWO}"])
def test_other_words_are_no_numbers(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--concurrency .*: expected whole numbers from 1 on"):
        numbers("--concurrency", text)
