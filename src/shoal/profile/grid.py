"""What is measured, in which order. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

from shoal.errors import ConfigurationError
from shoal.profile.records import Cell, Setting

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shoal.profile.records import Profile


@dataclass(frozen=True, slots=True)
class Grid:
    """Every combination of these, in ``rounds`` rounds."""

    instances: Sequence[int]
    batches: Sequence[int]
    concurrencies: Sequence[int]
    rounds: int
    duration_seconds: float
    input: Literal["random", "pictures"]

    def settings(self) -> list[Setting]:
        """In order; instances vary slowest, since another number of them means loading the model again."""
        return [Setting(*each) for each in product(self.instances, self.batches, self.concurrencies)]

    def cell(self, setting: Setting) -> Cell:
        """The empty cell of a setting."""
        return Cell(**setting._asdict(), duration_s=self.duration_seconds, input=self.input)

    def missing(self, profile: Profile) -> Iterator[tuple[int, Setting]]:
        """What ``profile`` lacks: number of the round, from 0, and setting.

        A round goes over all settings before the next begins, so that a machine that slows down does so for all of
        them; every other round goes backwards, so that none is always late, and the loaded instances stay.
        """
        settings = self.settings()
        kept = {setting: len(profile.cell(self.cell(setting)).rounds) for setting in settings}
        for number in range(self.rounds):
            for setting in reversed(settings) if number % 2 else settings:
                if kept[setting] <= number:
                    yield number, setting

    def cells(self, profile: Profile) -> list[Cell]:
        """Those of this grid that have been measured, in order."""
        return [cell for setting in self.settings() if (cell := profile.cell(self.cell(setting))).rounds]


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers from ``1,2,4``, in order, each once.

    Raises:
        ConfigurationError: one isn't a number, or below 1.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and word.isascii() and int(word) >= 1 for word in words):
        raise ConfigurationError(f"{option} {text}: expected whole numbers from 1 on, such as 1,2,4")
    return tuple(sorted({int(word) for word in words}))
