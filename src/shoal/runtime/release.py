"""What is held for a while and then given back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Releasable(ABC):
    """A context manager that calls ``release`` at its end."""

    __slots__ = ()

    @abstractmethod
    def release(self) -> None:
        """Gives back what is held. Once more is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
