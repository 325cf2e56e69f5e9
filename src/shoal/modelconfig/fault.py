"""What is wrong, or worth knowing, about a model in a store."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Severity(StrEnum):
    """Whether a model can be served all the same."""

    ERROR = "error"
    """It can't be served."""
    NOTE = "note"
    """It can be, at a cost that the message states."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One finding, with the place to mend it."""

    model: str
    severity: Severity
    file: Path
    field: str
    """The field of the file, such as ``input.dims``; empty where the file as a whole is meant."""
    message: str

    def __str__(self) -> str:
        place = f"{self.file}: {self.field}" if self.field else str(self.file)
        return f"{place}: {self.message}"


class FaultReport:
    """Collects one model's faults as they are found, so that one run names them all."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.faults: list[Fault] = []

    def error(self, file: Path, field: str, message: str) -> None:
        """Adds a fault that keeps the model from being served."""
        self.faults.append(Fault(self.model, Severity.ERROR, file, field, message))

    def note(self, file: Path, field: str, message: str) -> None:
        """Adds a remark."""
        self.faults.append(Fault(self.model, Severity.NOTE, file, field, message))

    @property
    def errors(self) -> list[Fault]:
        """The faults that keep the model from being served."""
        return [fault for fault in self.faults if fault.severity is Severity.ERROR]
