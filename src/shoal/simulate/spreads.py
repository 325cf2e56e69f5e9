"""Distributions of times, in seconds. Each implements ``scenario.Spread``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same."""

    value: float = 0.0

    def draw(self, _: random.Random) -> float:
        """Itself."""
        return self.value


@dataclass(frozen=True, slots=True)
class Uniform:
    """Between two."""

    least: float
    most: float

    def draw(self, source: random.Random) -> float:
        """Any of them, each as likely."""
        return self.least + (self.most - self.least) * source.random()
