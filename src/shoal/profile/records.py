"""The profile of a model: what each setting gave, where, and with what. No clock; ``read`` and ``write`` aside, no I/O.

``profile.json`` is this, with each cell's figures over its rounds beside the rounds themselves.
"""

from __future__ import annotations

import json
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shoal.errors import ConfigurationError
from shoal.runtime import intake
from shoal.runtime.files import replace_file

if TYPE_CHECKING:
    from pathlib import Path

FILE = "profile.json"
FORMAT: Literal["shoal.profile/1"] = "shoal.profile/1"
"""Another number: programs that read the one before can't read it."""

Count = Annotated[int, Field(ge=1)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # figures are written for others, and computed by us


class Setting(NamedTuple):
    """What a cell of the grid varies."""

    instances: int
    """Batches that the engine executes at once."""
    batch: int
    """Images a batch."""
    concurrency: int
    """Batches in flight: callers, each with a slot of its own, that send the next batch when one is answered."""


class Spread(NamedTuple):
    """A figure over the rounds."""

    median: float
    min: float
    max: float


class Round(_Record):
    """One measurement of a cell."""

    images_per_s: float
    p50_ms: float
    p99_ms: float
    """A batch's latency, from when it is sent, by nearest rank: of fewer than 100 batches p99 is the slowest one's."""
    batches: Count
    """That were finished in the window."""
    seconds: float
    """The window's length."""
    warm_up_s: float
    """How long the same load ran before the window."""
    settled: bool
    """Whether the rate was steady when the window began, rather than the warm-up's bound reached."""


class Cell(_Record):
    """A setting's rounds. Cells of another length or input are others: their figures don't mix."""

    instances: Count
    batch: Count
    concurrency: Count
    duration_s: float
    """That a round was asked to last."""
    input: Literal["random", "pictures"]
    executed_batch: float | None = None
    """Images in an execution as the engine itself counted them, where it tells: above ``batch`` it merged batches."""
    rounds: tuple[Round, ...] = ()

    @property
    def setting(self) -> Setting:
        """Where in the grid it is."""
        return Setting(self.instances, self.batch, self.concurrency)

    @property
    def images_per_s(self) -> Spread:
        """Over the rounds."""
        return _spread([one.images_per_s for one in self.rounds])

    @property
    def p50_ms(self) -> Spread:
        """A batch's median latency, over the rounds."""
        return _spread([one.p50_ms for one in self.rounds])

    @property
    def p99_ms(self) -> Spread:
        """A batch's 99th percentile, over the rounds."""
        return _spread([one.p99_ms for one in self.rounds])

    @property
    def batch_ms(self) -> float:
        """Milliseconds that a batch occupies an instance: busy instances over batches a second (Little's law).

        Busy are ``min(instances, concurrency)``. With fewer callers than instances that is the mean latency.
        """
        busy = min(self.instances, self.concurrency)
        return round(1000 * busy * self.batch / self.images_per_s.median, 3)

    def figures(self) -> dict[str, Any]:
        """All of it, with its figures over the rounds, ready for JSON; spreads are ``median``, ``min`` and ``max``."""
        spreads = {name: getattr(self, name)._asdict() for name in ("images_per_s", "p50_ms", "p99_ms")}
        return {**self.model_dump(mode="json"), **spreads, "batch_ms": self.batch_ms}

    @property
    def settled(self) -> bool:
        """Whether every round began with a steady rate."""
        return all(one.settled for one in self.rounds)


class Subject(_Record):
    """What was profiled. Another subject's cells belong into another profile."""

    model: str
    version: int
    engine: Literal["openvino", "triton"]
    engine_version: str
    checksum: str
    """``sha256:…``"""
    checksum_of: Literal["model file", "configuration"]
    """A server shows no model files: there it is the configuration's, without its instances and batching."""
    transport: Literal["in process", "shared memory", "messages"] = "in process"
    """How a batch comes to the engine."""


class Machine(_Record):
    """Where the profile was made; for a Triton elsewhere, where its caller ran."""

    cpu: str
    cores: int
    memory_gib: float
    gpus: tuple[str, ...] = ()


class Profile(_Record):
    """All cells of one subject on one machine."""

    format: Literal["shoal.profile/1"] = FORMAT
    subject: Subject
    machine: Machine
    versions: dict[str, str]
    date: str
    command: str
    """The command line of the last run that added to it."""
    load_average: float
    """The machine's over one minute, before that run: above 0, something else used the machine, too."""
    cells: tuple[Cell, ...] = ()

    def cell(self, like: Cell) -> Cell:
        """The cell of the same setting, duration and input; ``like`` itself where there is none yet."""
        return next((cell for cell in self.cells if _key(cell) == _key(like)), like)

    def with_round(self, like: Cell, measured: Round, executed_batch: float | None) -> Profile:
        """With one more round of the cell that is like ``like``."""
        old = self.cell(like)
        new = old.model_copy(update={"rounds": (*old.rounds, measured), "executed_batch": executed_batch})
        others = [cell for cell in self.cells if _key(cell) != _key(like)]
        return self.model_copy(update={"cells": tuple(sorted([*others, new], key=_key))})

    def to_json(self) -> str:
        """The file's text."""
        data = {**self.model_dump(mode="json"), "cells": [cell.figures() for cell in self.cells]}
        return json.dumps(data, indent=1) + "\n"


def read(path: Path) -> Profile | None:
    """The profile at ``path``; None where there is no file.

    Raises:
        ConfigurationError: it isn't a profile, or one of another format.
    """
    try:
        return Profile.model_validate_json(intake.read_text(path, intake.LIST_BYTES))
    except FileNotFoundError:
        return None
    except (ValidationError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path}: not a profile of format {FORMAT}: {_fault(error)}; --force starts anew"
        ) from error


def write(path: Path, profile: Profile) -> None:
    """Replaces the file at ``path``, whole or not at all."""
    replace_file(path, profile.to_json(), mode=None)


def _fault(error: ValidationError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return str(error)
    first = error.errors()[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))


def _key(cell: Cell) -> tuple[object, ...]:
    return (*cell.setting, cell.duration_s, cell.input)


def _spread(values: list[float]) -> Spread:
    return Spread(round(median(values), 3), min(values), max(values))
